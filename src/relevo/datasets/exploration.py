"""Comparisons and profiles of versions: computed in a child process on the first request, then kept."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from relevo.datasets.differences import Comparison
from relevo.datasets.model import DatasetVersion
from relevo.errors import Invalid, JobFailed, Overloaded, Unavailable
from relevo.platform.encoding import canonical, digest, parse
from relevo.platform.jobs import Job
from relevo.platform.objects import Objects
from relevo.platform.settings import Settings

_ENTRY = "relevo.datasets.exploration_child"
#: Raised when what is kept would be computed otherwise, so that it is computed anew.
_EDITION = 1
#: Requests that are under way or wait for their turn; one is computed at a time.
_PLACES = 4
#: How often a child's memory is looked at.
_LOOK_SECONDS = 0.1

#: What a child makes, given the child and a folder for its files.
Make = Callable[[Job, Path], bytes]


_IN_PYTHON = "In Python there is more room: relevo.dataset gives a version as a lazy frame."


@dataclass(frozen=True, slots=True)
class Limits:
    """What one comparison or profile may take. ``memory_bytes`` None: half of the machine's memory."""

    seconds: float = 300.0
    memory_bytes: int | None = None


class _Guard:
    """Kills a job that takes more than it may, from a thread of its own; ``reason`` says what it took."""

    def __init__(self, job: Job, limits: Limits) -> None:
        self.reason: str | None = None
        self._job = job
        self._limits = limits
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="exploration-guard", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Watch no more."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        deadline = time.monotonic() + self._limits.seconds
        allowed = self._limits.memory_bytes or psutil.virtual_memory().total // 2
        while not self._ended.wait(min(_LOOK_SECONDS, max(0.0, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                self.reason = f"took longer than {self._limits.seconds:g} s"
            elif _resident(self._job.pid) > allowed:
                self.reason = f"needs more memory than the {allowed / 1e9:.1f} GB that it may have"
            if self.reason is not None:
                self._job.kill()
                return


class Exploration:
    """Compares and profiles recorded versions. Thread-safe; close it to end what is under way.

    Args:
        settings: Where the tables and the log are.
        objects: Where results are kept, by the digests of the contents that they are about.
        limits: Of one job.
    """

    def __init__(self, settings: Settings, objects: Objects, limits: Limits | None = None) -> None:
        self._settings = settings
        self._objects = objects
        self._limits = limits or Limits()
        self._places = threading.BoundedSemaphore(_PLACES)
        self._turn = threading.Lock()
        self._job: Job | None = None
        self._is_closed = False

    def compare(self, before: DatasetVersion, after: DatasetVersion, names: Sequence[str]) -> Comparison:
        """What became of ``before``, an earlier version of the same dataset.

        Args:
            before: The earlier version.
            after: The later one.
            names: The columns that name a row.

        Raises:
            Invalid: They are versions of different datasets.
            Unavailable: It took more time or memory than it may.
            Overloaded: Too many comparisons and profiles are under way.
            JobFailed: The child failed.
        """
        if (before.model, before.source) != (after.model, after.source):
            raise Invalid(f"Expected two versions of one dataset, got {label(before)} and {label(after)}.")
        about = digest([before.digest, after.digest, before.columns, after.columns, list(names)])
        path = f"comparisons/{after.model}/{after.source}/{about}-{_EDITION}.json"

        def make(job: Job, folder: Path) -> bytes:
            return canonical(
                job.call(
                    "compare",
                    tables_root=self._tables(after),
                    source=after.source,
                    before=before.version,
                    after=after.version,
                    names=list(names),
                )
            )

        what = f"The comparison of {after.model}/{after.source} {before.version} and {after.version}"
        return parse(Comparison, json.loads(self._kept(path, what, make)))

    def profile(self, version: DatasetVersion) -> str:
        """A page of HTML that stands alone: how the version's values are distributed, from a bounded sample.

        Its scripts are skrub's: show it in a sandbox, never in our own origin.

        Raises:
            Unavailable: skrub is not installed, or it took more time or memory than it may.
            Overloaded: Too many comparisons and profiles are under way.
            JobFailed: The child failed.
        """
        path = f"profiles/{version.model}/{version.source}/{version.digest}-{_EDITION}.html"

        def make(job: Job, folder: Path) -> bytes:
            output = folder / "profile.html"
            job.call(
                "profile",
                tables_root=self._tables(version),
                source=version.source,
                version=version.version,
                seed=version.digest,
                title=f"{version.model}/{version.source}, content {version.digest[:12]}",
                output=str(output),
            )
            return output.read_bytes()

        if not self._objects.exists(path):
            require_skrub()
        return self._kept(path, f"The profile of {label(version)}", make).decode()

    def close(self) -> None:
        """End the child that is under way; its request fails."""
        self._is_closed = True
        job = self._job
        if job is not None:
            job.kill()

    def _kept(self, path: str, what: str, make: Make) -> bytes:
        """The object at ``path``, made when it is not there."""
        if self._objects.exists(path):
            return self._objects.get(path)
        with self._its_turn():
            if self._objects.exists(path):  # somebody else asked for the same
                return self._objects.get(path)
            content = self._made(what, make)
            self._objects.put(path, content)
            return content

    @contextlib.contextmanager
    def _its_turn(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise Overloaded(
                f"{_PLACES} comparisons and profiles of datasets are under way already.",
                hint="Try again when they are done.",
            )
        try:
            with self._turn:
                yield
        finally:
            self._places.release()

    def _made(self, what: str, make: Make) -> bytes:
        log = self._settings.folder("logs") / "exploration.log"
        caches = self._settings.folder("cache", "matplotlib")
        environment = {"MPLBACKEND": "Agg", "MPLCONFIGDIR": str(caches)}
        with (
            TemporaryDirectory(prefix="relevo-") as folder,
            Job(_ENTRY, python=Path(sys.executable), package=None, log=log, environment=environment) as job,
        ):
            self._job = job
            guard = _Guard(job, self._limits)
            try:
                if self._is_closed:
                    raise Unavailable(f"{what} stops: the control plane is closing.")
                return make(job, Path(folder))
            except JobFailed as error:
                if self._is_closed:
                    raise Unavailable(f"{what} stops: the control plane is closing.") from None
                if guard.reason is not None:
                    raise Unavailable(f"{what} was stopped: it {guard.reason}.", hint=_IN_PYTHON) from None
                raise JobFailed(f"{what} failed. {error.message}", hint=error.hint) from None
            finally:
                guard.end()
                self._job = None

    def _tables(self, version: DatasetVersion) -> str:
        return str(self._settings.root / "tables" / version.model)


def _resident(pid: int) -> int:
    """Bytes of memory that a process holds; 0 when it is gone."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def require_skrub() -> None:
    """Say what to install when profiles cannot be drawn.

    Raises:
        Unavailable: skrub is not installed.
    """
    if importlib.util.find_spec("skrub") is None:
        raise Unavailable(
            "A profile needs skrub, which is not installed here.", hint="Install it with: pip install 'relevo[explore]'"
        )


def label(version: DatasetVersion) -> str:
    """``model/source version``, as it is said in sentences."""
    return f"{version.model}/{version.source} version {version.version}"
