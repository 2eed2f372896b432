"""The application of the demo: asks the endpoint in event-time order, and reports the outcomes when they are known."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from relevo.errors import RelevoError

if TYPE_CHECKING:
    import aiohttp

CONCURRENT_REQUESTS = 8
LABELS_A_REQUEST = 500
#: Flights of one airport that are scheduled within this time are asked about in one request.
ASKED_TOGETHER = "5m"


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
        self._board = board.sort("scheduled_at")
        self._asked = [name for name in board.columns if name not in {"flight_id", "reported_at", "is_late"}]
        self._unreported: list[_Label] = []
        self._places = asyncio.Semaphore(CONCURRENT_REQUESTS)
        self.tally = Tally()

    async def ask(self, start: datetime, end: datetime) -> None:
        """Ask about every flight scheduled in ``[start, end)``, the earlier ones first."""
        rows = self._board.filter(pl.col("scheduled_at").is_between(start, end, closed="left"))
        together = [pl.col("scheduled_at").dt.truncate(ASKED_TOGETHER).alias("_at"), "origin"]
        for _, group in rows.group_by(together, maintain_order=True):
            await self._places.acquire()
            self._spawn(self._ask(group))
        await self._settled()

    async def report(self, until: datetime) -> None:
        """Report every outcome that is known by ``until`` and was not reported yet."""
        due = [label for label in self._unreported if label.reported_at <= until]
        self._unreported = [label for label in self._unreported if label.reported_at > until]
        for first in range(0, len(due), LABELS_A_REQUEST):
            await self._places.acquire()
            self._spawn(self._report(due[first : first + LABELS_A_REQUEST]))
        await self._settled()

    async def _ask(self, rows: pl.DataFrame) -> None:
        asked = rows.select(self._asked)
        body = {"dataframe_split": {"columns": asked.columns, "data": asked.rows()}}
        answer = await self._post("invocations", body)
        if answer is None:
            return
        self.tally.predictions += len(answer["prediction_ids"])
        outcomes = zip(rows["reported_at"], answer["prediction_ids"], rows["is_late"], strict=True)
        self._unreported.extend(_Label(*outcome) for outcome in outcomes)

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
