"""The files of a segment writer: appended to, synced, closed, and cut back where something was not to be kept."""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from relevo.platform.files import sync

MAX_AGE_SECONDS = 1.0
MAX_SEGMENT_BYTES = 8 << 20

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, order=True)
class SegmentName:
    """A segment of one worker boot. Segments of a boot are ordered by their sequence, which starts at 1."""

    worker: str
    boot: int
    sequence: int

    @property
    def stem(self) -> str:
        """The file name without ``.open`` or ``.seg``."""
        return f"{self.boot:016x}-{self.sequence:08d}"


def parse_name(path: Path) -> SegmentName | None:
    """The segment that ``path`` is, or None when it is another file."""
    boot, _, sequence = path.stem.partition("-")
    if path.suffix not in (".open", ".seg") or len(boot) != 16 or not sequence.isdigit():
        return None
    try:
        return SegmentName(path.parent.name, int(boot, 16), int(sequence))
    except ValueError:
        return None


class Verdict:
    """Whether a batch is kept, which is said once: by the thread that has written it, or by who has waited too long."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_kept: bool | None = None

    def give(self, *, is_kept: bool) -> bool:
        """Say so; whether that is how it stands."""
        with self._lock:
            if self._is_kept is None:
                self._is_kept = is_kept
            return self._is_kept is is_kept


class SegmentFiles:
    """The open segment file; only the writer's thread calls the methods that write."""

    def __init__(self, folder: Path, boot: int) -> None:
        self._folder = folder
        self._boot = boot
        self._sequence = 0
        self._descriptor: int | None = None
        self._path = folder
        self._synced_bytes = 0
        self._opened_at = 0.0

    def is_old(self) -> bool:
        """Whether a segment is open for a second or longer."""
        return self._descriptor is not None and time.monotonic() - self._opened_at >= MAX_AGE_SECONDS

    def write(self, frames: list[bytes], verdict: Verdict) -> None:
        """Append and sync; on an error, or when it is not to be kept, cut back to what was synced before, and close.

        After a failed sync nothing says what reached the disk, so that file is not written again.
        """
        try:
            descriptor = self._open()
            data = b"".join(frames)
            _write_all(descriptor, data)
            os.fdatasync(descriptor)
        except OSError:
            self._abandon()
            raise
        if not verdict.give(is_kept=True):
            self._abandon()
            return
        self._synced_bytes += len(data)
        if self._synced_bytes >= MAX_SEGMENT_BYTES or self.is_old():
            self.retire()

    def retire(self) -> None:
        """Close the open segment, when there is one, and give it the name of a closed one.

        A name that cannot be given is no error: the reader takes every segment but the newest of a boot as closed.
        """
        if self._descriptor is None:
            return
        os.close(self._descriptor)
        self._descriptor = None
        try:
            self._path.rename(self._path.with_suffix(".seg"))
        except OSError as error:
            logger.error("segment %s cannot be renamed: %s", self._path, error)

    def _open(self) -> int:
        if self._descriptor is None:
            name = SegmentName(self._folder.name, self._boot, self._sequence + 1)
            self._path = self._folder / f"{name.stem}.open"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
            self._descriptor = os.open(self._path, flags, 0o600)
            self._sequence += 1
            self._synced_bytes, self._opened_at = 0, time.monotonic()
            sync(self._folder)
        return self._descriptor

    def _abandon(self) -> None:
        """Leave the file with what was synced; a cut that fails too is found by the reader's checksum."""
        if self._descriptor is None:
            return
        try:
            os.ftruncate(self._descriptor, self._synced_bytes)
        except OSError as error:
            logger.error("segment %s cannot be cut: %s", self._path, error)
        if self._synced_bytes == 0:  # nothing was acknowledged from it, and a full disk needs no file a batch
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None
            return
        self.retire()


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
