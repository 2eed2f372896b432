"""The distributions that a run was made with, as a list that pip could install, and its digest."""

from __future__ import annotations

import hashlib
import importlib.metadata
from pathlib import Path

#: What the model needs to be loaded by any MLflow client, where there is no lock.
_FOR_A_MODEL = ("cloudpickle", "lightgbm", "numpy", "pandas", "scikit-learn", "scipy", "xgboost")


def environment_text(lock: Path | None) -> str:
    """The lock as it is; without one, ``name==version`` of everything installed, sorted."""
    if lock is not None:
        return lock.read_text()
    found = {
        distribution.metadata["Name"].lower().replace("_", "-"): distribution.version
        for distribution in importlib.metadata.distributions()
        if distribution.metadata["Name"]
    }
    return "".join(f"{name}=={version}\n" for name, version in sorted(found.items()))


def environment_digest(text: str) -> str:
    """SHA-256 of the text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def requirements(lock: Path | None) -> list[str]:
    """What to tell MLflow that the model needs: the pins of the lock, else the libraries that models are made of."""
    if lock is not None:
        return [line for line in _logical_lines(lock.read_text()) if "==" in line and not line.startswith("-")]
    installed = dict(line.split("==", 1) for line in environment_text(None).splitlines())
    return [f"{name}=={installed[name]}" for name in _FOR_A_MODEL if name in installed]


def _logical_lines(text: str) -> list[str]:
    """The requirements of a lock, without hashes and comments."""
    joined = text.replace("\\\n", " ")
    lines = (line.split("#")[0].split("--hash")[0].strip() for line in joined.splitlines())
    return [line for line in lines if line]
