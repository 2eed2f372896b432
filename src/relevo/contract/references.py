"""Reads what a contract names of the team's package: modules, and ``module:name`` references."""

from __future__ import annotations

import re

from relevo.contract.reading import Block, meant

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MODULE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
_REFERENCE = re.compile(rf"{_MODULE.pattern}:[A-Za-z_]\w*")


def read_reference(block: Block, key: str, package: str) -> str:
    """A required ``module:name`` of the package."""
    what = f"module:name, such as {package or 'my_package'}.sources:{key}"
    value = block.text(key, what=what)
    if value and not _REFERENCE.fullmatch(value):
        block.wrong(key, f"expected {what}, got {value!r}")
        return ""
    _require_in_package(block, key, value, package)
    return value


def read_optional_reference(block: Block, key: str, package: str) -> str | None:
    """A ``module:name`` of the package that may be left out."""
    return read_reference(block, key, package) if key in block else (block.optional_text(key))


def read_module(block: Block, key: str, package: str) -> str:
    """A required module of the package."""
    what = f"a module such as {package or 'my_package'}.features"
    value = block.text(key, what=what)
    if value and not _MODULE.fullmatch(value):
        block.wrong(key, f"expected {what}, got {value!r}")
        return ""
    _require_in_package(block, key, value, package)
    return value


def _require_in_package(block: Block, key: str, value: str, package: str) -> None:
    root = value.split(":")[0].split(".")[0]
    if value and package and root != package:
        block.wrong(key, f"expected a module of the package {package!r}, got {root!r}{meant(root, [package])}")
