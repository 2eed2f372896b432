"""A version's model asked with whole columns, for bulk scoring. Runs in child processes only: it may unpickle.

Where a runtime takes a matrix it gets one. Any other is asked with rows, as the gateway asks it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
import polars as pl

from relevo.runtimes import lightgbm, original
from relevo.runtimes.frames import as_frame, frame_of_columns
from relevo.runtimes.lightgbm import LightgbmRuntime
from relevo.runtimes.loading import (
    ISOLATED,
    PROBE_FILE,
    LoadedRuntime,
    Predictions,
    Sealed,
    check_probe,
    decode_probe,
    load_runtime,
)
from relevo.runtimes.model import CATEGORIES_FILE, Signature
from relevo.runtimes.model_folder import FOLDER, load_model

Floats = np.ndarray[Any, np.dtype[np.float64]]


class ColumnModel(Protocol):
    """A model that answers frames. Not thread-safe."""

    def predict(self, frame: pl.DataFrame) -> Floats:
        """Answers ``(n_rows,)`` or ``(n_rows, n_classes)`` for all inputs in the signature's order and types."""
        ...


def open_model(folder: Path, manifest: Sealed) -> ColumnModel:
    """The model of the verified bundle in ``folder``, after it has answered the sealed rows as sealed.

    For the isolated runtime this process must have the version's own environment.

    Raises:
        Corrupted: A file is not what the runtime expects, or an answer is not the sealed one.
        Unavailable: What the runtime needs is not installed.
    """
    if manifest.runtime == ISOLATED:
        probe = decode_probe((folder / PROBE_FILE).read_bytes())
        answering = Original(folder, manifest.signature)
        check_probe(answering.predict_rows, probe, manifest.signature)
        return answering
    loaded = load_runtime(folder, manifest)
    loaded.probe()
    if manifest.runtime == "lightgbm":
        loaded.close()
        return Booster(
            LightgbmRuntime.load((folder / lightgbm.FILE).read_bytes(), manifest.signature), manifest.signature
        )
    return Rows(loaded)


class Original:
    """The model that the team returned, in this process."""

    def __init__(self, folder: Path, signature: Signature) -> None:
        self._signature = signature
        self._categories = msgspec.json.decode((folder / CATEGORIES_FILE).read_bytes(), type=dict[str, list[str]])
        self._model = load_model(folder / FOLDER)

    def predict(self, frame: pl.DataFrame) -> Floats:
        """Answers for a frame."""
        columns = {name: frame[name] for name in frame.columns}
        asked = frame_of_columns(columns, self._signature, self._categories)
        return original.predict(self._model, asked, self._signature)

    def predict_rows(self, rows: Sequence[Sequence[object]]) -> Predictions:
        """Answers for rows of values, as the probe has them."""
        asked = as_frame(rows, self._signature, self._categories)
        answers: Predictions = original.predict(self._model, asked, self._signature).tolist()
        return answers


class Booster:
    """LightGBM's own batch call over one matrix."""

    def __init__(self, runtime: LightgbmRuntime, signature: Signature) -> None:
        self._runtime = runtime
        self._columns = [
            _encoded(column.name, codes) for column, codes in zip(signature.inputs, runtime.codes, strict=True)
        ]

    def predict(self, frame: pl.DataFrame) -> Floats:
        """Answers for a frame."""
        matrix = np.ascontiguousarray(frame.select(self._columns).to_numpy(order="c"), dtype=np.float64)
        answers = np.empty((frame.height, self._runtime.outputs), dtype=np.float64)
        if frame.height:
            self._runtime.predict_matrix(matrix.ctypes.data, frame.height, answers.ctypes.data)
        return answers[:, 0] if self._runtime.outputs == 1 else answers


class Rows:
    """Any other runtime, asked with rows of plain values."""

    def __init__(self, runtime: LoadedRuntime) -> None:
        self._runtime = runtime

    def predict(self, frame: pl.DataFrame) -> Floats:
        """Answers for a frame."""
        return np.asarray(self._runtime.predict(frame.rows()), dtype=np.float64)


def _encoded(name: str, codes: Any) -> pl.Expr:
    column = pl.col(name)
    if codes is None:
        return column.cast(pl.Float64).fill_null(float("nan"))
    if not codes:
        return pl.lit(float("nan")).alias(name)
    return column.replace_strict(list(codes), list(codes.values()), default=float("nan"), return_dtype=pl.Float64)
