"""Answers of a model for the rows that can be asked, and which rows it cannot answer. For children."""

from __future__ import annotations

import numpy as np
import polars as pl

from relevo.errors import Corrupted, RelevoError, Unavailable
from relevo.runtimes.columns import ColumnModel, Floats
from relevo.scoring.validation import Refusals

#: Rows that one call of the model gets: a chunk in one call would need several copies of it at once.
BATCH_ROWS = 16_384


def answers(
    model: ColumnModel, inputs: pl.DataFrame, refusals: Refusals, *, outputs: int
) -> tuple[pl.Series, Refusals]:
    """A prediction a row: a number, or the list of ``outputs`` numbers; null for rows that are refused.

    A batch that the model refuses is halved until the guilty rows are alone.
    """
    is_asked = refusals.message.is_null().to_numpy()
    asked = inputs.filter(is_asked)
    errors: dict[int, str] = {}
    found = [np.empty((0, outputs))]
    for first in range(0, asked.height, BATCH_ROWS):
        found += _answered(model, asked.slice(first, BATCH_ROWS), first, errors, outputs)
    answered = np.concatenate(found)
    for place in np.flatnonzero(~np.isfinite(answered).all(axis=1)).tolist():
        errors.setdefault(place, f"the model gave {answered[place].tolist()}, which is not finite")
    if errors:
        messages: list[str | None] = [None] * inputs.height
        for asked_place, place in enumerate(np.flatnonzero(is_asked).tolist()):
            messages[place] = errors.get(asked_place)
        refusals = refusals.then(pl.Series(messages, dtype=pl.String), "")
    every = np.full((inputs.height, outputs), np.nan)
    every[is_asked] = answered
    values = pl.Series("prediction", every[:, 0] if outputs == 1 else every)
    values = values if outputs == 1 else values.arr.to_list()
    frame = pl.DataFrame([values, refusals.message.alias("refused")])
    return frame.select(pl.when(pl.col("refused").is_null()).then("prediction")).to_series(), refusals


def _answered(
    model: ColumnModel, inputs: pl.DataFrame, first: int, errors: dict[int, str], outputs: int
) -> list[Floats]:
    """The answers of a batch, NaN for rows that the model refuses; ``errors`` takes why, by their place."""
    try:
        return [model.predict(inputs).reshape(inputs.height, outputs)]
    except (Corrupted, Unavailable, MemoryError):  # no fault of a row
        raise
    except Exception as error:
        if inputs.height == 1:
            errors[first] = (
                error.message if isinstance(error, RelevoError) else f"{type(error).__name__}: {error}"[:300]
            )
            return [np.full((1, outputs), np.nan)]
    half = inputs.height // 2
    return [
        *_answered(model, inputs.head(half), first, errors, outputs),
        *_answered(model, inputs.tail(-half), first + half, errors, outputs),
    ]
