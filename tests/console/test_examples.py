"""The examples in the docstrings of the console."""

import doctest

import pytest

from relevo.console import layout, wording


@pytest.mark.parametrize("module", [layout, wording])
def test_the_examples_of_a_module_hold(module: object) -> None:
    results = doctest.testmod(module)  # type: ignore[arg-type]
    assert results.attempted > 0 and results.failed == 0
