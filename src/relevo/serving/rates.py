"""Token buckets: how many requests a caller may send to this worker.

A bucket holds as many requests as the rate names, and is filled evenly (Turner 1986, "New directions in communications,
or which way to the information age?"). Each of the workers that share a port has its even share of both.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic

from relevo.identity.model import Accepted
from relevo.identity.policy import requests_and_seconds


@dataclass(slots=True)
class Bucket:
    """A bucket that begins full.

    Attributes:
        size: Requests that it holds, at least one.
        per_second: Requests by which it is filled.
    """

    size: float
    per_second: float
    filled: float
    at: float

    @classmethod
    def of(cls, rate: str, workers: int, now: float) -> Bucket:
        """A worker's share of a rate such as ``100/s``."""
        requests, seconds = requests_and_seconds(rate)
        size = max(1.0, requests / workers)
        return cls(size, requests / seconds / workers, size, now)

    def take(self, now: float) -> float:
        """Take one request out: 0, or the seconds until there is one.

        >>> bucket = Bucket.of("2/s", workers=1, now=0.0)
        >>> [bucket.take(at) for at in (0.0, 0.0, 0.0, 0.5)]
        [0.0, 0.0, 0.5, 0.0]
        """
        filled = min(self.size, self.filled + (now - self.at) * self.per_second)
        self.at = now
        if filled < 1.0:
            self.filled = filled
            return (1.0 - filled) / self.per_second
        self.filled = filled - 1.0
        return 0.0


class Rates:
    """The buckets of the tokens with a rate. They outlive each reading of the tokens. Belongs to the event loop.

    Args:
        workers: How many workers share the port.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._buckets: dict[str, tuple[str, Bucket]] = {}

    def keep(self, tokens: dict[str, Accepted]) -> None:
        """Forget the buckets of tokens that are no longer accepted."""
        if self._buckets:
            self._buckets = {digest: one for digest, one in self._buckets.items() if digest in tokens}

    def take(self, digest: str, rate: str) -> float:
        """Take one request out of the token's bucket: 0, or the seconds until there is one."""
        now = monotonic()
        found = self._buckets.get(digest)
        if found is None or found[0] != rate:
            found = self._buckets[digest] = rate, Bucket.of(rate, self._workers, now)
        return found[1].take(now)
