"""One request for reasons: what each input adds to the prediction for each row.

Rows are made as for a prediction. Nothing is logged and no id is issued: an explanation is no prediction that somebody
acts on, and gets no label.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from time import perf_counter

import msgspec

from relevo.errors import Invalid, RelevoError, TooLarge
from relevo.runtimes.exchange import MlflowJson, Predictions, Question, Reply
from relevo.runtimes.explanation import Explanation
from relevo.runtimes.model import Link
from relevo.serving.deadlines import before
from relevo.serving.inputs import Inputs
from relevo.serving.live import LiveEndpoint
from relevo.serving.shedding import Shedding
from relevo.serving.versions import LoadedVersion

#: Rows of one request: sampling takes a tenth of a second a row.
MAX_ROWS = 100
#: Requests that are explained at once, or wait for that.
MAX_REQUESTS = 16

_encode = msgspec.json.Encoder().encode


class _Row(msgspec.Struct, frozen=True):
    prediction: float | list[float]
    base: float | list[float]
    contributions: dict[str, float | list[float]]


class _Answer(msgspec.Struct, frozen=True):
    explanations: list[_Row]
    link: Link
    version: int


class Explanations:
    """Answers requests for reasons. Belongs to the event loop.

    Args:
        inputs: Makes the rows.
        threads: Where explaining blocks.
        shedding: Counts requests that are sent away.
    """

    def __init__(self, inputs: Inputs, threads: Executor, shedding: Shedding) -> None:
        self._inputs = inputs
        self._threads = threads
        self._shedding = shedding
        self._requests = 0

    async def answer(self, endpoint: LiveEndpoint, question: Question, addressed: int | None) -> Reply:
        """Predictions with what each input adds; the champion's, or those of the version that is addressed.

        Raises:
            Invalid: The request does not fit the signature, or holds a value that the model cannot answer.
            TooLarge: It has too many rows.
            Unavailable: No version is loaded.
            DeadlineExceeded: It was not ready in the endpoint's time.
            Overloaded: Too many requests are being explained.
            RelevoError: The model raised.
        """
        if self._requests >= MAX_REQUESTS:
            message = f"{MAX_REQUESTS} requests are being explained; try again later."
            raise self._shedding.refusal(endpoint.name, "explain", message)
        self._requests += 1
        try:
            return await self._answer(endpoint, question, addressed)
        finally:
            self._requests -= 1

    async def _answer(self, endpoint: LiveEndpoint, question: Question, addressed: int | None) -> Reply:
        until = perf_counter() + endpoint.patience_seconds
        version = endpoint.champion() or endpoint.choose() if addressed is None else endpoint.addressed(addressed)
        with version:
            try:
                request, asked_us = await self._inputs.take(endpoint, version, MlflowJson, question, until)
                if len(request.rows) > MAX_ROWS:
                    raise TooLarge(f"At most {MAX_ROWS} rows are explained at once, got {len(request.rows):,}.")
                await self._inputs.fill(version, request, asked_us, until)
                loop = asyncio.get_running_loop()
                explaining = loop.run_in_executor(self._threads, _explained, version, request.rows)
                found = await before(until, explaining)
            except (Invalid, TooLarge):
                version.tally.refused += 1
                raise
        version.tally.explained += 1
        return Reply(_encode(_answer(version, *found)))


def _explained(version: LoadedVersion, rows: Sequence[Sequence[object]]) -> tuple[Predictions, Explanation]:
    try:
        return version.runtime.predict(rows), version.runtime.explain(rows)
    except RelevoError:
        raise
    except Exception as error:
        raise RelevoError(
            f"Version {version.endpoint}/{version.version} could not be explained: {type(error).__name__}: {error}"
        ) from error


def _answer(version: LoadedVersion, predictions: Predictions, found: Explanation) -> _Answer:
    names = [column.name for column in version.signature.inputs]
    answers: list[float | list[float]] = [*predictions]
    rows = [
        _Row(answer, base, dict(zip(names, added, strict=True)))
        for answer, base, added in zip(answers, found.base, found.contributions, strict=True)
    ]
    return _Answer(rows, found.link, version.version)
