"""Environments of the peers, each with what it asks for; made once and kept under ``.environments``."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from processes import HERE

_FOLDER = HERE / ".environments"


def python_of(peer: str) -> Path:
    """The interpreter of the environment of ``peers/PEER.txt``; made when that is new or has changed."""
    wanted = HERE / "peers" / f"{peer}.txt"
    folder = _FOLDER / peer
    made_from, digest = folder / "made-from", hashlib.sha256(wanted.read_bytes()).hexdigest()
    python = folder / "bin" / "python"
    if not made_from.exists() or made_from.read_text() != digest:
        print(f"making the environment of {peer} in {folder.relative_to(HERE.parent)}")
        shutil.rmtree(folder, ignore_errors=True)
        _uv("venv", "--quiet", "--no-project", "--python", sys.executable, str(folder))
        _uv("pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), "--requirement", str(wanted))
        made_from.write_text(digest)
    return python


def versions_of(peer: str, names: tuple[str, ...]) -> dict[str, str]:
    """The installed versions of these packages in the environment of the peer."""
    code = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    given = subprocess.run(
        [str(python_of(peer)), "-c", code, *names], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.split()
    return dict(zip(names, given, strict=True))


def _uv(*arguments: str) -> None:
    # Its settings and its lock are the project's, not the peer's.
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    subprocess.run([sys.executable, "-m", "uv", *arguments], check=True, env=environment)
