"""The application of the demo: asks the endpoint in event-time order, and reports the outcomes when they are known."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from relevo.errors import RelevoError

if TYPE_CHECKING:
    import aiohttp

CONCURRENT_REQUESTS = 32
LABELS_A_REQUEST = 500
#: Flights of one airport that are scheduled within this time are asked about in one request.
ASKED_TOGETHER = "10m"


@dataclass(slots=True)
class Tally:
    """What the application saw: rows acknowledged, labels acknowledged, requests and those that failed."""

    requests: int = 0
    predictions: int = 0
    labels: int = 0
    failed: int = 0
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Label:
    reported_at: datetime
    prediction_id: str
    is_late: bool | None


class Traffic:
    """Sends asks and labels to one endpoint over HTTP.

    Args:
        session: An open client session that carries the application's token.
        url: Address of the endpoint, ``http://host:port/endpoints/NAME``.
        board: What is asked and reported, by ``scheduled_at`` (see the example's ``application.board``).
    """

    def __init__(self, session: aiohttp.ClientSession, url: str, board: pl.DataFrame) -> None:
        self._session = session
        self._url = url
        together = [pl.col("scheduled_at").dt.truncate(ASKED_TOGETHER), "origin"]
        self._board = board.with_columns(_group=pl.struct(together).rank("dense")).sort("_group", "scheduled_at")
        self._columns = [name for name in board.columns if name not in {"flight_id", "reported_at", "is_late"}]
        self._unreported: list[_Label] = []
        self._places = asyncio.Semaphore(CONCURRENT_REQUESTS)
        self.tally = Tally()

    async def ask(self, start: datetime, end: datetime) -> None:
        """Ask about every flight scheduled in ``[start, end)``, the earlier ones first."""
        rows = self._board.filter(pl.col("scheduled_at").is_between(start, end, closed="left"))
        asked = rows.select(self._columns).rows()
        outcomes = rows.select("reported_at", "is_late").rows()
        groups = rows["_group"].to_list()
        for _, indices in groupby(range(len(groups)), key=groups.__getitem__):
            together = list(indices)
            await self._places.acquire()
            self._spawn(self._ask([asked[i] for i in together], [outcomes[i] for i in together]))
        await self._settled()

    async def report(self, until: datetime) -> None:
        """Report every outcome that is known by ``until`` and was not reported yet."""
        due = [label for label in self._unreported if label.reported_at <= until]
        self._unreported = [label for label in self._unreported if label.reported_at > until]
        for first in range(0, len(due), LABELS_A_REQUEST):
            await self._places.acquire()
            self._spawn(self._report(due[first : first + LABELS_A_REQUEST]))
        await self._settled()

    async def _ask(self, rows: list[tuple[Any, ...]], outcomes: list[tuple[datetime, bool | None]]) -> None:
        answer = await self._post("invocations", {"dataframe_split": {"columns": self._columns, "data": rows}})
        if answer is None:
            return
        ids = answer["prediction_ids"]
        self.tally.predictions += len(ids)
        self._unreported.extend(
            _Label(reported_at, prediction_id, is_late)
            for prediction_id, (reported_at, is_late) in zip(ids, outcomes, strict=True)
        )

    async def _report(self, labels: list[_Label]) -> None:
        answer = await self._post("labels", {"labels": [_label_json(label) for label in labels]})
        if answer is not None:
            self.tally.labels += answer["accepted"]

    async def _post(self, what: str, body: object) -> dict[str, Any] | None:
        self.tally.requests += 1
        async with self._session.post(f"{self._url}/{what}", data=msgspec.json.encode(body)) as response:
            text = await response.read()
            if response.status == 200:
                return msgspec.json.decode(text, type=dict)
        self.tally.failed += 1
        if len(self.tally.failures) < 10:
            self.tally.failures.append(f"{response.status} {text[:300].decode(errors='replace')}")
        return None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._places.release()
        if task.exception() is not None:
            self.tally.failed += 1
            self.tally.failures.append(repr(task.exception()))

    async def _settled(self) -> None:
        """Wait until every request in flight is answered."""
        for _ in range(CONCURRENT_REQUESTS):
            await self._places.acquire()
        for _ in range(CONCURRENT_REQUESTS):
            self._places.release()


def _label_json(label: _Label) -> dict[str, object]:
    known = {"prediction_id": label.prediction_id, "known_at": label.reported_at}
    return {**known, "no_outcome": True} if label.is_late is None else {**known, "value": label.is_late}


def open_session(token: str) -> aiohttp.ClientSession:
    """A client session with keep-alive that carries the token.

    Raises:
        RelevoError: The extra that the demo needs is missing.
    """
    try:
        import aiohttp
    except ModuleNotFoundError:
        raise RelevoError("The demo needs an extra: pip install 'relevo[demo]'.") from None
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    return aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=CONCURRENT_REQUESTS))
