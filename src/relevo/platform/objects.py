"""The object store: immutable blobs named by their SHA-256, and small named objects."""

from __future__ import annotations

import hashlib
from pathlib import Path

import obstore
from obstore.store import LocalStore

from relevo.errors import Corrupted, Invalid, NotFound
from relevo.platform.files import sync


class Objects:
    """Objects under one root. Writes are atomic and reach the disk before they return. Thread- and process-safe.

    Args:
        root: The folder that holds them; made with mode 0700 when it is not there.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._store = LocalStore(str(root))

    def put_blob(self, content: bytes) -> str:
        """Keep ``content`` and return its SHA-256 in hex. Storing the same again writes nothing."""
        sha256 = hashlib.sha256(content).hexdigest()
        path = _blob_path(sha256)
        # A stored copy that no longer matches is replaced: its digest says what belongs there.
        if not self.exists(path) or hashlib.sha256(self.get(path)).hexdigest() != sha256:
            self.put(path, content)
        return sha256

    def get_blob(self, sha256: str) -> bytes:
        """The content of that SHA-256.

        Raises:
            NotFound: When there is no such blob.
            Corrupted: When the stored bytes no longer match.
        """
        content = self.get(_blob_path(sha256))
        found = hashlib.sha256(content).hexdigest()
        if found != sha256:
            raise Corrupted(f"Blob {sha256} is corrupted: its {len(content)} bytes hash to {found}.")
        return content

    def put(self, path: str, content: bytes) -> None:
        """Write ``content`` to ``path`` (``a/b/c``), replacing what was there.

        Raises:
            Invalid: When the path is empty, absolute, or leaves the root.
        """
        obstore.put(self._store, _checked(path), content)
        self._sync(path)

    def get(self, path: str) -> bytes:
        """The content at ``path``.

        Raises:
            NotFound: When there is nothing.
        """
        try:
            return bytes(obstore.get(self._store, _checked(path)).bytes())
        except FileNotFoundError:
            raise NotFound(f"There is no object {path} in {self.root}.") from None

    def exists(self, path: str) -> bool:
        """Whether there is an object at ``path``."""
        try:
            obstore.head(self._store, _checked(path))
        except FileNotFoundError:
            return False
        return True

    def has_blob(self, sha256: str) -> bool:
        """Whether there is a blob of that SHA-256; its bytes are not looked at."""
        return self.exists(_blob_path(sha256))

    def list(self, prefix: str = "") -> list[str]:
        """Paths of the objects in the folder ``prefix`` and below it, sorted."""
        where = _checked(prefix) if prefix else None
        return sorted(str(item["path"]) for chunk in obstore.list(self._store, where) for item in chunk)

    def delete(self, path: str) -> None:
        """Remove the object at ``path``; nothing happens when there is none."""
        if self.exists(path):
            obstore.delete(self._store, path)

    def _sync(self, path: str) -> None:
        """Bring file and folder entries to the disk: a row that cites the object may be committed next."""
        file = self.root / path
        for each in (file, *file.parents):
            sync(each)
            if each == self.root:
                return


def _blob_path(sha256: str) -> str:
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise Invalid(f"a blob is named by 64 lower-case hex digits, got {sha256[:80]!r}")
    return f"blobs/{sha256[:2]}/{sha256}"


def _checked(path: str) -> str:
    if not path.isprintable() or any(part in ("", ".", "..") for part in path.split("/")) or "\\" in path:
        raise Invalid(f"an object's path is relative, without empty parts or dots, such as a/b/c; got {path[:200]!r}")
    return path
