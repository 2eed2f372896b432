"""The durable log of one gateway worker: frames in, group commits, closed segments out.

A segment is ``<folder>/<worker>/<boot>-<sequence>.open`` while it is written and ``.seg`` once it is closed. The worker
holds a lock on its ``lock`` file; a released lock means that its open segments are closed. The file names the boot of
the holder, and the newest rotation that it has followed.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from relevo.errors import Conflict, Unavailable
from relevo.predictions.segment_files import SegmentFiles, Verdict

ROTATE_MARKER = "rotate"
LOCK_FILE = "lock"
MAX_BUFFER_BYTES = 64 << 20
TICK_SECONDS = 0.05
RETRY_SECONDS = 0.5
PATIENCE_SECONDS = 10.0
_LOCK_WAIT_SECONDS = 2.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a worker's lock: its boot, and the rotation (time of the marker, ns) that it has followed."""

    boot: int
    rotated_ns: int


def holder(folder: Path) -> Holder | None:
    """The live writer of the worker folder ``folder``, or None when nobody holds its lock."""
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        boot, _, rotated = os.pread(descriptor, 64, 0).decode("ascii").strip().partition(" ")
        return Holder(int(boot or "0", 16), int(rotated or "0"))
    else:
        return None
    finally:
        os.close(descriptor)


def rotation_ns(log: Path) -> int:
    """When the last rotation was asked for: the marker's time in ns, 0 when there is no marker."""
    try:
        return (log / ROTATE_MARKER).stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def ask_rotation(log: Path) -> int:
    """Ask every worker to close what it has; gives the marker's new time, larger than any before it."""
    descriptor = os.open(log / ROTATE_MARKER, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        marked = max(time.time_ns(), os.fstat(descriptor).st_mtime_ns + 1)
        os.utime(descriptor, ns=(marked, marked))
        return marked
    finally:
        os.close(descriptor)


class SegmentWriter:
    """Writes the frames of one worker. Made inside the event loop that it belongs to; file work is done in a thread.

    Use one writer for durable endpoints and another (another worker name) for buffered ones.

    Args:
        folder: The log folder that all workers share.
        worker: Name of the worker; its folder is made.
        boot: From `relevo.predictions.ids.new_boot`.
        durable: Whether `durable` waits for the disk. Otherwise frames are written and synced every 50 ms.
        patience_seconds: How long who waits for the disk does so. What comes later is taken out of the log again.

    Attributes:
        failures: Batches that could not be written.
        lost_frames: Frames dropped with them. A buffered writer keeps and retries them until it is closed.
        error: Why the last batch could not be written; None when it was.

    Raises:
        Conflict: Another process writes as this worker.
    """

    def __init__(
        self, folder: Path, worker: str, boot: int, durable: bool, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        self._log = folder
        self._patience_seconds = patience_seconds
        self._durable = durable
        self._lock = _WorkerLock(folder / worker, boot)
        self._rotated_ns = rotation_ns(folder)
        self._lock.report(self._rotated_ns)
        self._files = SegmentFiles(folder / worker, boot)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="segments")
        self._buffer: list[bytes] = []
        self._buffered_bytes = 0
        self._waiting: asyncio.Future[None] | None = None
        self._running: asyncio.Future[None] | None = None
        self._is_stuck = False
        self._closed = False
        self.failures = 0
        self.lost_frames = 0
        self.error: str | None = None
        self._retry_at = 0.0
        self._maintenance = asyncio.get_running_loop().create_task(self._maintain())

    @property
    def waiting_bytes(self) -> int:
        """Bytes that no batch has taken to the disk yet."""
        return self._buffered_bytes

    def append(self, frame: bytes) -> None:
        """Put ``frame`` in the buffer; call `durable` next, with no other wait between them.

        Raises:
            Unavailable: The disk does not keep up or does not take anything: the buffer has reached 64 MiB, or those
                who wait have given up.
        """
        if self._closed:
            raise Unavailable("The prediction log is closed: this worker is stopping.")
        if self._is_stuck:
            raise self._stuck()
        if self._buffered_bytes + len(frame) > MAX_BUFFER_BYTES:
            raise Unavailable("The prediction log cannot be written fast enough: 64 MiB wait for the disk.")
        self._buffer.append(frame)
        self._buffered_bytes += len(frame)

    async def durable(self) -> None:
        """Return when everything appended before is on the disk; at once when the writer is buffered.

        All who wait while a sync is running share the next one.

        Raises:
            Unavailable: It could not be written; the frames that waited are dropped, and their requests must fail.
        """
        if not self._durable:
            return
        if not self._buffer and self._running is None:
            return
        if not self._buffer and self._running is not None:
            await asyncio.shield(self._running)
            return
        if self._waiting is None:
            self._waiting = asyncio.get_running_loop().create_future()
            if self._running is None:
                asyncio.get_running_loop().call_soon(self._start_batch)
        await asyncio.shield(self._waiting)

    async def close(self) -> None:
        """Write and sync what is buffered, close the segment and release the lock. Calling it again does nothing.

        Raises:
            Unavailable: What was buffered could not be written.
        """
        if self._closed:
            return
        self._closed = True
        self._maintenance.cancel()
        try:
            await self._drain()
            await asyncio.get_running_loop().run_in_executor(self._thread, self._files.retire)
        finally:
            self._thread.shutdown(wait=True)
            self._lock.release()
            self.lost_frames += len(self._buffer)

    async def _drain(self) -> None:
        while self._buffer or self._running is not None:
            if self._running is None:
                self._start_batch()
            if self._running is not None:
                await asyncio.shield(self._running)

    async def _write_buffered(self) -> None:
        """Return when what is buffered now was written: it goes with the running batch and the one after it."""
        for _ in range(2):
            if self._running is None:
                self._start_batch()
            if self._running is not None:
                await asyncio.shield(self._running)

    def _start_batch(self) -> None:
        """Hand the buffer to the thread, unless it is busy: then the next batch starts when it is done."""
        if self._running is not None or not self._buffer:
            return
        frames, self._buffer, self._buffered_bytes = self._buffer, [], 0
        loop = asyncio.get_running_loop()
        done = self._waiting or loop.create_future()
        self._waiting, self._running = None, done
        done.add_done_callback(_retrieve)
        verdict = Verdict()
        work = loop.run_in_executor(self._thread, self._files.write, frames, verdict)
        patience = loop.call_later(self._patience_seconds, self._give_up, frames, done, verdict)
        work.add_done_callback(lambda finished: self._finish_batch(finished, frames, done, patience))

    def _give_up(self, frames: list[bytes], done: asyncio.Future[None], verdict: Verdict) -> None:
        """The disk has not answered in time: refuse who waits for it, and those behind, until it does."""
        if not self._durable or not verdict.give(is_kept=False):
            return
        self._is_stuck = True
        self.failures += 1
        self.lost_frames += len(frames) + len(self._buffer)
        self._buffer, self._buffered_bytes = [], 0
        waiting, self._waiting = self._waiting, None
        self.error = self._stuck().message
        logger.error("prediction log in %s: %s", self._log, self.error)
        for one in (done, waiting):
            if one is not None:
                one.set_exception(self._stuck())
                _retrieve(one)

    def _stuck(self) -> Unavailable:
        return Unavailable(f"The disk of the prediction log has not answered for {self._patience_seconds:g} s.")

    def _finish_batch(
        self,
        work: asyncio.Future[None],
        frames: list[bytes],
        done: asyncio.Future[None],
        patience: asyncio.TimerHandle,
    ) -> None:
        self._running = None
        patience.cancel()
        error = work.exception()
        if done.done():  # nobody waits any more, and what was written is taken back
            self._is_stuck = False
            self.error = None if error is None else str(error)
        elif error is None:
            self.error = None
            done.set_result(None)
        else:
            self._fail_batch(error, frames, done)
            if not self._durable:
                return  # the next tick tries again
        if self._waiting is not None:
            self._start_batch()

    def _fail_batch(self, error: BaseException, frames: list[bytes], done: asyncio.Future[None]) -> None:
        self.failures += 1
        if self._durable:
            self.lost_frames += len(frames)
        else:
            self._buffer[:0] = frames
            self._buffered_bytes += sum(map(len, frames))
        if str(error) != self.error:  # once, not with every batch: the disk may be full of just that
            logger.error("prediction log in %s cannot be written: %s", self._log, error)
        self.error = str(error)
        self._retry_at = time.monotonic() + RETRY_SECONDS
        done.set_exception(Unavailable(f"The prediction log could not be written: {error}."))

    async def _maintain(self) -> None:
        """Every 50 ms: write what nobody waits for, rotate by age or on request, and report the rotation."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                marked = rotation_ns(self._log)
                if self._buffer and self._waiting is None and time.monotonic() >= self._retry_at:
                    self._start_batch()
                if marked > self._rotated_ns:
                    await self._write_buffered()
                    await loop.run_in_executor(self._thread, self._files.retire)
                    self._lock.report(marked)
                    self._rotated_ns = marked
                elif self._files.is_old():
                    await loop.run_in_executor(self._thread, self._files.retire)
            except Exception:
                self.failures += 1
                logger.exception("prediction log in %s: maintenance failed; it goes on", self._log)


def _retrieve(future: asyncio.Future[None]) -> None:
    """Mark the exception as seen: a batch that nobody waited for is logged and counted instead."""
    if not future.cancelled():
        future.exception()


class _WorkerLock:
    """The lock file of a worker, held for the life of the process."""

    def __init__(self, folder: Path, boot: int) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._boot = boot
        self._descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + _LOCK_WAIT_SECONDS
        while True:  # a reader that looks whether the lock is free holds it for microseconds
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(self._descriptor)
                    raise Conflict(f"Another process writes the prediction log in {folder}; stop it first.") from None
                time.sleep(0.01)
        self.report(0)

    def report(self, rotated_ns: int) -> None:
        """State the boot, and that the rotation at ``rotated_ns`` was followed. One write of fixed length."""
        os.pwrite(self._descriptor, b"%016x %020d\n" % (self._boot, rotated_ns), 0)

    def release(self) -> None:
        """Release the lock: what is open now counts as closed."""
        os.close(self._descriptor)
