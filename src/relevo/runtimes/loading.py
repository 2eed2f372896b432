"""From a bundle's files to something that answers. Light: the gateway imports this, and never unpickles."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import msgspec

from relevo.errors import Corrupted, Invalid
from relevo.platform.memory import private_bytes
from relevo.runtimes import lightgbm, linear, onnx, xgboost
from relevo.runtimes.batches import BatchCounts
from relevo.runtimes.explanation import Explanation, explanation_of
from relevo.runtimes.isolated import IsolatedRuntime, ProcessLimits
from relevo.runtimes.model import CATEGORIES_FILE, Categories, Link, Signature, timed

#: The runtime that asks the original model in a child process.
ISOLATED = "isolated"
#: Rows with the answers of the original.
PROBE_FILE = "runtime/probe.json"

#: A call that takes longer holds up the other requests of an event loop, and is better made in a thread.
_IMMEDIATE_SECONDS = 0.002
_TRIES = 5

Predictions = list[float] | list[list[float]]


class Runtime(Protocol):
    """A model that answers. Every implementation is thread-safe until it is closed."""

    def predict(self, rows: Sequence[Sequence[object]]) -> Predictions:
        """Answers for rows ``(n_rows, n_inputs)`` in the signature's order, None for null.

        Of a regression or of two classes ``(n_rows,)``, of more classes ``(n_rows, n_classes)``.
        """
        ...

    def explain(self, rows: Sequence[Sequence[object]]) -> Explanation | None:
        """What each input adds to the answers for such rows; None when it cannot say so itself."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


class Sealed(Protocol):
    """What loading needs of a manifest."""

    @property
    def runtime(self) -> str:
        """Name of the runtime."""
        ...

    @property
    def signature(self) -> Signature:
        """Inputs and output."""
        ...


class Probe(msgspec.Struct, frozen=True):
    """Rows, the answers that the original gave, and how far an answer may be off, relative beyond 1."""

    rows: list[list[Any]]
    outputs: list[float | list[float]]
    tolerance: float


#: Made once, on import: msgspec crashes when two threads read a class at the same time.
decode_probe = msgspec.json.Decoder(Probe).decode


class LoadedRuntime:
    """A runtime with the probe of its bundle.

    Attributes:
        is_blocking: Whether ``predict`` waits for another process; then ``predict_async`` is there for an event loop.
        immediate_rows: So many rows are answered fast enough to be asked on an event loop; ``probe`` finds out.
    """

    def __init__(
        self, runtime: Runtime, signature: Signature, probe: Probe, explainer: Callable[[], IsolatedRuntime]
    ) -> None:
        self.signature = signature
        self.predict = runtime.predict
        self.is_blocking = isinstance(runtime, IsolatedRuntime)
        self.immediate_rows = 0
        self._runtime = runtime
        self._probe = probe
        self._make_explainer = explainer
        self._explainer: IsolatedRuntime | None = None
        self._explainer_limits = ProcessLimits()
        self._lock = threading.Lock()

    async def predict_async(self, rows: Sequence[Sequence[object]], until: float | None = None) -> Predictions:
        """As ``predict``, without holding up the event loop where another process answers.

        After ``until``, on the monotonic clock, nobody waits for the answer.
        """
        if isinstance(self._runtime, IsolatedRuntime):
            return await self._runtime.predict_async(rows, until)
        return self._runtime.predict(rows)

    def expected_wait(self) -> float:
        """Seconds until a request that comes now has its turn in the model's own process; 0 when it has none."""
        return self._runtime.expected_wait() if isinstance(self._runtime, IsolatedRuntime) else 0.0

    def protect(self, limits: ProcessLimits) -> None:
        """Bound what the model's own processes may take, when it has some; does not block.

        An explanation asks the model many times, and keeps the time of an unbounded one.
        """
        self._explainer_limits = replace(limits, call_seconds=max(limits.call_seconds, ProcessLimits().call_seconds))
        if isinstance(self._runtime, IsolatedRuntime):
            self._runtime.limits = limits
        explainer = self._explainer
        if explainer is not None:
            explainer.limits = self._explainer_limits

    def explain(self, rows: Sequence[Sequence[object]]) -> Explanation:
        """What each input adds to the answers for rows ``(n_rows, n_inputs)``; may take seconds, and blocks.

        A runtime that cannot say so has its original model asked in a child of its own, which starts on the first call.

        Raises:
            Invalid: A row holds a value that the model cannot answer.
            JobFailed: The model raised.
            Unavailable: It took longer than its limit, or the child does not start.
        """
        own = self._runtime.explain(rows)
        if own is not None:
            return own
        with self._lock:
            if self._explainer is None:
                self._explainer = self._make_explainer()
                self._explainer.limits = self._explainer_limits
        flat: Any = self._explainer.predict(rows)
        return explanation_of(flat, self.signature, Link.IDENTITY)

    def probe(self) -> int:
        """Answers the sealed rows and returns how many there were.

        Raises:
            Corrupted: An answer is not the one that was sealed with the version.
        """
        n_rows = check_probe(self._runtime.predict, self._probe, self.signature)
        if n_rows and not self.is_blocking:
            self.immediate_rows = int(_IMMEDIATE_SECONDS / self._row_seconds())
        return n_rows

    def _row_seconds(self) -> float:
        """What a row of many takes; the best of a few tries, since others may have the processor."""
        rows = [timed(row, self.signature) for row in self._probe.rows]
        times = []
        for _ in range(_TRIES):
            began = time.perf_counter()
            self._runtime.predict(rows)
            times.append(time.perf_counter() - began)
        return min(times) / len(rows)

    @property
    def sample(self) -> list[list[Any]]:
        """The sealed rows as JSON has them."""
        return self._probe.rows

    @property
    def process_bytes(self) -> int | None:
        """The memory that the model's own process shares with nobody; None when it has no process."""
        if not isinstance(self._runtime, IsolatedRuntime):
            return None
        return private_bytes(self._runtime.pid)

    @property
    def waiting_rows(self) -> int | None:
        """Rows that wait for the model's own process; None when it has none."""
        return self._runtime.waiting_rows if isinstance(self._runtime, IsolatedRuntime) else None

    def count_batches(self, counts: BatchCounts) -> None:
        """Count from now on in ``counts`` what the model's own process is asked, when it has one."""
        if isinstance(self._runtime, IsolatedRuntime):
            self._runtime.batches = counts

    @property
    def replaced_processes(self) -> int:
        """How many processes took the place of one that hung, died or grew too large."""
        return self._runtime.replaced if isinstance(self._runtime, IsolatedRuntime) else 0

    def close(self) -> None:
        """Free what the runtime holds; child processes end."""
        self._runtime.close()
        with self._lock:
            if self._explainer is not None:
                self._explainer.close()


def check_probe(
    predict: Callable[[Sequence[Sequence[object]]], Predictions], probe: Probe, signature: Signature
) -> int:
    """Answers the sealed rows with ``predict`` and returns how many there were.

    Raises:
        Corrupted: An answer is not the one that was sealed with the version.
    """
    rows = [timed(row, signature) for row in probe.rows]
    if not rows:
        return 0
    answers: Sequence[float | list[float]] = predict(rows)
    for index, (expected, got) in enumerate(zip(probe.outputs, answers, strict=True)):
        if not _is_close(expected, got, probe.tolerance):
            raise Corrupted(f"Probe row {index}: expected {expected}, got {got}.")
    return len(rows)


def load_runtime(folder: Path, manifest: Sealed, *, python: Path | None = None) -> LoadedRuntime:
    """The runtime of the verified bundle in ``folder``. May take seconds; call it off the event loop.

    Args:
        folder: A folder that ``BundleCache`` gave.
        manifest: Its manifest.
        python: Interpreter of the version's environment, for the isolated runtime; default: this one.

    Raises:
        Corrupted: A file is not what the runtime expects.
        Invalid: The runtime is not known here.
        Unavailable: What the runtime needs is not installed, or its child does not start.
    """
    probe = decode_probe((folder / PROBE_FILE).read_bytes())
    signature = manifest.signature
    if manifest.runtime == ISOLATED:
        runtime: Runtime = IsolatedRuntime(folder, signature, python=python)
    else:
        wanted = (CATEGORIES_FILE, *_FILES.values())
        files = {path: (folder / path).read_bytes() for path in wanted if (folder / path).is_file()}
        runtime = open_runtime(manifest.runtime, files, signature)
    return LoadedRuntime(
        runtime, signature, probe, partial(IsolatedRuntime, folder, signature, python=python, explains=True)
    )


def open_runtime(name: str, files: Mapping[str, bytes], signature: Signature) -> Runtime:
    """The compiled runtime of that name from its file, and the categories beside it.

    Raises:
        Corrupted: The file is missing or is not what the runtime expects.
        Invalid: There is no compiled runtime of that name.
    """
    if name not in _FILES:
        raise Invalid(f"Unknown runtime {name!r}; expected one of {', '.join((*_FILES, ISOLATED))}.")
    path = _FILES[name]
    if path not in files:
        raise Corrupted(f"The bundle has no {path}, which the runtime {name} needs.")
    try:
        if name == "linear":
            return linear.LinearRuntime.load(files[path], signature)
        if name == "lightgbm":
            return lightgbm.LightgbmRuntime.load(files[path], signature)
        if name == "xgboost":
            return xgboost.XgboostRuntime.load(files[path], signature, _categories(files))
        return onnx.OnnxRuntime.load(files[path], signature, _categories(files))
    except (msgspec.MsgspecError, ValueError) as error:
        raise Corrupted(f"{path}: {error}") from None


_FILES = {
    "linear": linear.FILE,
    "lightgbm": lightgbm.FILE,
    "xgboost": xgboost.FILE,
    "onnx-float64": onnx.FILE,
    "onnx-float32": onnx.FILE,
}


def _categories(files: Mapping[str, bytes]) -> Categories:
    return msgspec.json.decode(files.get(CATEGORIES_FILE, b"{}"), type=dict[str, list[str]])


def _is_close(expected: float | list[float], got: float | list[float], tolerance: float) -> bool:
    if isinstance(expected, list) or isinstance(got, list):
        if not (isinstance(expected, list) and isinstance(got, list)) or len(expected) != len(got):
            return False
        return all(_is_close(one, other, tolerance) for one, other in zip(expected, got, strict=True))
    return math.isfinite(got) and abs(expected - got) <= tolerance * max(1.0, abs(expected))
