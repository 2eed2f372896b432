"""A version's predictions, made where they do not hold up the event loop."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from itertools import chain

from relevo.runtimes.exchange import Predictions
from relevo.serving.deadlines import before
from relevo.serving.versions import LoadedVersion


class NotFinite(ValueError):
    """A prediction that is no number, or beyond all of them; ``row`` is its place in the request."""

    def __init__(self, row: int, prediction: float | list[float]) -> None:
        super().__init__(f"it gave {prediction}, which is not finite")
        self.row = row


#: Predictions of a version for rows, made in the threads where need be, by then.
Predict = Callable[[LoadedVersion, Sequence[Sequence[object]], Executor, float], Awaitable[Predictions]]


async def predict(
    version: LoadedVersion, rows: Sequence[Sequence[object]], threads: Executor, until: float
) -> Predictions:
    """Finite predictions for complete rows: in the event loop, in a thread or in the version's own process.

    Raises:
        DeadlineExceeded: They were not there by ``until``.
        NotFinite: One is not finite.
    """
    runtime = version.runtime
    if len(rows) <= runtime.immediate_rows:
        predictions = runtime.predict(rows)
    elif runtime.is_blocking:
        predictions = await before(until, runtime.predict_async(rows, until))
    else:
        loop = asyncio.get_running_loop()
        predictions = await before(until, loop.run_in_executor(threads, runtime.predict, rows))
    _check_finite(predictions)
    return predictions


def _check_finite(predictions: Predictions) -> None:
    flat = predictions if isinstance(predictions[0], float) else chain.from_iterable(predictions)
    if all(map(math.isfinite, flat)):
        return
    each: list[float | list[float]] = [*predictions]
    for row, one in enumerate(each):
        if not all(map(math.isfinite, one if isinstance(one, list) else [one])):
            raise NotFinite(row, one)
