"""Where a package of boosted trees keeps its C library: found without importing the package, which brings others."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from relevo.errors import Unavailable


def find_library(package: str, pattern: str, install: str) -> Path:
    """The library of an installed package.

    Args:
        package: Its name as it is imported.
        pattern: Of the file in its folder ``lib``.
        install: What to do where it is missing, as a sentence.

    Raises:
        Unavailable: The package is not installed here.
    """
    found = importlib.util.find_spec(package)
    for folder in () if found is None else found.submodule_search_locations or ():
        for path in sorted(Path(folder, "lib").glob(pattern)):
            return path
    raise Unavailable(f"The library of {package} is not installed here.", hint=install)
