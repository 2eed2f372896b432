"""The backlog: which segments of the log are closed, and what becomes of one when it is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from relevo.predictions.segment_files import SegmentName, parse_name
from relevo.predictions.segments import holder

DAMAGED_FOLDER = "damaged"


@dataclass(frozen=True, slots=True)
class ClosedSegment:
    """A segment that nobody writes any more. ``was_abandoned``: its worker died before it could close it."""

    name: SegmentName
    path: Path
    was_abandoned: bool

    @property
    def app_id(self) -> str:
        """Under which its sequence is recorded in the tables that hold its rows."""
        return f"{self.name.worker}/{self.name.boot:016x}"

    def read(self) -> bytes:
        """Its bytes, also when its writer has renamed it meanwhile."""
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return self.path.with_suffix(".seg").read_bytes()

    def remove(self) -> None:
        """Delete it: its rows are in the tables."""
        self.path.unlink(missing_ok=True)
        self.path.with_suffix(".seg").unlink(missing_ok=True)

    def set_aside(self, log: Path) -> Path:
        """Keep it under ``log/damaged``, because some of its bytes could not be read."""
        kept = log / DAMAGED_FOLDER / f"{self.name.worker}-{self.name.stem}.seg"
        kept.parent.mkdir(exist_ok=True, mode=0o700)
        path = self.path if self.path.exists() else self.path.with_suffix(".seg")
        return path.rename(kept)


def segments(log: Path) -> dict[SegmentName, Path]:
    """Every segment file, open or closed, by its name.

    The folder is listed twice: a listing may miss a file that is renamed meanwhile, and each is renamed only once.
    """
    found: dict[SegmentName, Path] = {}
    for _ in range(2):
        for path in log.glob("*/*-*"):
            name = parse_name(path)
            if name is None or name.worker == DAMAGED_FOLDER:
                continue
            if name not in found or path.suffix == ".seg":
                found[name] = path
    return found


def closed_segments(log: Path) -> list[ClosedSegment]:
    """The closed segments, those of one worker boot in their order and without a gap.

    An open one is closed when its boot no longer holds the worker's lock, or has gone on to a newer segment. The locks
    are looked at after the files, so that a worker that starts meanwhile cannot lose its first segment.
    """
    found = segments(log)
    live = {worker: holder(log / worker) for worker in {name.worker for name in found}}
    newest: dict[tuple[str, int], int] = {}
    for name in found:
        boot = (name.worker, name.boot)
        newest[boot] = max(newest.get(boot, 0), name.sequence)
    closed = []
    for name in sorted(found):
        is_open = found[name].suffix == ".open"
        writer = live[name.worker]
        is_live = writer is not None and writer.boot == name.boot
        if is_open and is_live and name.sequence == newest[name.worker, name.boot]:
            continue
        closed.append(ClosedSegment(name, found[name], was_abandoned=is_open))
    return closed
