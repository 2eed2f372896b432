"""MLflow takes 4 s to import: the child begins at once, in the background, while it loads data. Light to import."""

from __future__ import annotations

import contextlib
import importlib
import threading
import warnings
from collections.abc import Iterator
from typing import Any

_thread: threading.Thread | None = None


def import_early() -> None:
    """Begin the import; at most once in a process."""
    global _thread
    if _thread is None:
        _thread = threading.Thread(target=_import, name="import-mlflow", daemon=True)
        _thread.start()


def imported() -> Any:
    """The module ``mlflow``, with ``sklearn``, ``pyfunc`` and ``models``, once it is there."""
    import_early()
    assert _thread is not None
    _thread.join()
    with quiet():
        return importlib.import_module("mlflow")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """MLflow warns of much that nobody here can change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _import() -> None:
    for name in ("mlflow", "mlflow.sklearn", "mlflow.models"):
        importlib.import_module(name)
