"""Code snapshots: a team's package and its lock as immutable, content-addressed bytes, and unpacked to run."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
import threading
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from relevo.errors import Corrupted, Invalid, TooLarge
from relevo.platform.objects import Objects

LOCK_NAME = "requirements.lock"
MAX_FILES = 5_000
MAX_UNPACKED_BYTES = 400 * 1024 * 1024
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold: equal files give equal bytes


def pack(files: Mapping[str, bytes], *, compressed: bool) -> bytes:
    """The files as a zip whose bytes depend on nothing but their paths and contents.

    Uncompressed, that holds across versions of the compressing library too.
    """
    packed = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(packed, "w", method) as archive:
        for path in sorted(files):
            entry = zipfile.ZipInfo(path, _EPOCH)
            entry.compress_type = method
            entry.create_system = 3  # Unix, wherever it was packed
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, files[path])
    return packed.getvalue()


def unpack(content: bytes) -> dict[str, bytes]:
    """The files of a zip by path, after checking that each path stays inside and that they are not too many or large.

    Raises:
        Invalid: It is no zip, is damaged, or holds a path that leads out of its folder, a link, or a path twice.
        TooLarge: It holds more than ``MAX_FILES`` files or ``MAX_UNPACKED_BYTES`` bytes.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            _check_entries(entries)
            return {entry.filename: archive.read(entry) for entry in entries}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
        raise Invalid(f"The upload cannot be read as a zip file: {error}.") from error


def _check_entries(entries: list[zipfile.ZipInfo]) -> None:
    if len(entries) > MAX_FILES:
        raise TooLarge(f"The upload holds {len(entries)} files; at most {MAX_FILES} are allowed.")
    size = sum(entry.file_size for entry in entries)
    if size > MAX_UNPACKED_BYTES:
        raise TooLarge(f"The upload unpacks to {size} bytes; at most {MAX_UNPACKED_BYTES} are allowed.")
    seen: set[str] = set()
    for entry in entries:
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if not is_safe(entry.filename) or kind not in (0, stat.S_IFREG):
            raise Invalid(f"The upload holds {entry.filename!r}, which is not a plain file inside the project.")
        if entry.filename.lower() in seen:
            raise Invalid(f"The upload holds {entry.filename!r} twice (small and capital letters count as equal).")
        seen.add(entry.filename.lower())


def is_safe(path: str) -> bool:
    """Whether a path is relative, stays inside its folder, and means the same on every system.

    >>> is_safe("flight_delay/train.py"), is_safe("../keys/signing.key"), is_safe("/etc/passwd")
    (True, False, False)
    """
    parts = path.split("/")
    is_plain = path.isprintable() and not set(path) & set('\\:*?"<>|')
    return is_plain and all(part not in ("", ".", "..") for part in parts) and len(path) <= 512


class Snapshots:
    """Keeps snapshots as blobs, and unpacks them under ``root/<digest>`` when they are first run.

    Thread-safe, and safe for several processes on one root.
    """

    def __init__(self, objects: Objects, root: Path) -> None:
        self._objects = objects
        self._root = root

    def keep(self, files: Mapping[str, bytes]) -> str:
        """Store the files; their digest, which is the same whenever the same files are kept."""
        return self._objects.put_blob(pack(files, compressed=False))

    def digests(self, snapshot: str) -> dict[str, str]:
        """SHA-256 of each file of a snapshot, by path."""
        files = unpack(self._objects.get_blob(snapshot))
        return {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}

    def folder(self, snapshot: str) -> Path:
        """The unpacked, read-only folder, from which the package is imported.

        Raises:
            NotFound: There is no such snapshot.
            Corrupted: Its stored bytes have changed.
        """
        folder = self._root / snapshot
        if folder.is_dir():
            return folder
        files = unpack(self._objects.get_blob(snapshot))
        partial = self._root / f".{snapshot}-{os.getpid()}-{threading.get_ident()}"
        try:
            for path, content in files.items():
                _write(partial, path, content)
            for inner in sorted(partial.rglob("*"), reverse=True):
                inner.chmod(0o555 if inner.is_dir() else 0o444)
            try:
                partial.rename(folder)
            except OSError:
                if not folder.is_dir():  # else somebody else was faster, with the same files
                    raise
        finally:
            _discard(partial)
        return folder


def _write(folder: Path, path: str, content: bytes) -> None:
    target = folder / PurePosixPath(path)
    if not target.resolve().is_relative_to(folder.resolve()):
        raise Corrupted(f"A snapshot holds {path!r}, which leads out of its folder.")
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    target.write_bytes(content)


def _discard(folder: Path) -> None:
    """Remove a folder whose inner folders may be read-only; nothing happens when it was renamed away."""
    for inner in folder.rglob("*"):
        if inner.is_dir():
            inner.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)
