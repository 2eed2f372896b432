"""The gateway's way to the online store: in the event loop where that takes microseconds, else in threads."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from relevo.errors import Unavailable
from relevo.features.online import OnlineStore
from relevo.features.storage import is_redis
from relevo.serving.deadlines import before

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: From here on a lookup in SQLite takes long enough to hold up others, and goes to a thread.
ROWS_FOR_A_THREAD = 64
#: Connections to Redis of one worker; an answer waits for one that is free.
REDIS_THREADS = 4
REDIS_PATIENCE_SECONDS = 1.0
#: After a failure the next lookups fail at once for so long, or each would wait for its time-out.
PAUSE_SECONDS = 0.5


class LookupFailed(Unavailable):
    """The online store cannot be asked at the moment."""


class Lookups:
    """The online store as one gateway worker uses it. Belongs to the event loop.

    Args:
        place: The path of a SQLite file, or the URL of a Redis.
    """

    def __init__(self, place: Path | str) -> None:
        self._place = place
        self._is_remote = is_redis(place)
        self._here = None if self._is_remote else OnlineStore(place)
        self._threads = ThreadPoolExecutor(REDIS_THREADS if self._is_remote else 1, "lookup")
        self._of_thread = threading.local()
        self._opened: list[OnlineStore] = []
        self._failure: tuple[float, LookupFailed] | None = None
        if self._is_remote:
            OnlineStore(place).close()  # a wrong setting is told at the start

    async def look_up(self, rows: int, ask: Callable[[OnlineStore], T], until: float) -> T:
        """What ``ask`` gives, called with a store; ``rows`` says how much it will ask for.

        Raises:
            DeadlineExceeded: It did not come by ``until``.
            LookupFailed: The store cannot be reached.
        """
        failure = self._failure
        if failure is not None and time.monotonic() < failure[0]:
            raise failure[1]
        try:
            if self._here is not None and rows < ROWS_FOR_A_THREAD:
                found = ask(self._here)
            else:
                loop = asyncio.get_running_loop()
                found = await before(until, loop.run_in_executor(self._threads, self._in_thread, ask))
        except Unavailable as error:
            if self._failure is None:
                logger.error("lookups fail: %s", error.message)
            failed = LookupFailed(error.message, hint=error.hint)
            self._failure = (time.monotonic() + PAUSE_SECONDS, failed)
            raise failed from error
        if self._failure is not None:
            logger.info("lookups succeed again")
            self._failure = None
        return found

    def close(self) -> None:
        """Close every connection."""
        self._threads.shutdown(wait=True)
        for store in (*self._opened, *([] if self._here is None else [self._here])):
            store.close()

    def _in_thread(self, ask: Callable[[OnlineStore], T]) -> T:
        store: OnlineStore | None = getattr(self._of_thread, "store", None)
        if store is None:
            patience = {"patience_seconds": REDIS_PATIENCE_SECONDS} if self._is_remote else {}
            store = self._of_thread.store = OnlineStore(self._place, **patience)
            self._opened.append(store)
        return ask(store)
