"""The examples in the docstrings, each a number that was checked by hand or against a second library."""

import doctest
import importlib
import pkgutil

import pytest

import relevo.statistics

MODULES = [module.name for module in pkgutil.iter_modules(relevo.statistics.__path__, "relevo.statistics.")]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_hold(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted > 0
    assert results.failed == 0
