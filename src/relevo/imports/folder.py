"""The folder of an import: the model as MLflow has it, and the further files of its bundle."""

from __future__ import annotations

from pathlib import Path

MODEL, FILES = "model", "files"


def files_of(folder: Path, prefix: str = "") -> dict[str, bytes]:
    """The files below ``folder``, by ``prefix`` and relative path."""
    return {
        f"{prefix}{path.relative_to(folder).as_posix()}": path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
