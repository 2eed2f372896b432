"""Files that survive a power cut."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def sync(path: Path) -> None:
    """Bring a file's content, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_once(path: Path, content: bytes) -> None:
    """Write beside ``path`` and link it there: the first of several processes wins, whole or not at all.

    Nothing happens when the file is there. Its mode is 0600; a missing folder is made with mode 0700.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
        path.hardlink_to(draft)
    except FileExistsError:
        pass  # another process was first; what it wrote is read
    finally:
        os.close(descriptor)
        draft.unlink()
