"""The online store's bytes in Redis, for gateways on several machines.

Redis runs one command after the other, so an MGET sees one moment, and a Lua script is seen whole or not at all. Record
and entries are in the same Redis: what it loses of one it loses of the other (a snapshot and the append-only file are
of one moment too), and the views are then filled anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

from relevo.errors import Invalid, Unavailable
from relevo.features.storage import PATIENCE_SECONDS

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ImportError:  # the extra is not installed; opening says so
    redis = None  # type: ignore[assignment]

T = TypeVar("T")

DEFAULT_PREFIX = "relevo"
CONNECT_SECONDS = 1.0
_PUT_AT_ONCE = 1_000
_SWAP = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
for i = 2, #KEYS do redis.call('SET', KEYS[i], ARGV[i + 1]) end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""


class RedisStorage:
    """A ``Storage`` in the Redis at ``url``.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``; ``prefix`` in its query parts installations that share a
            database, by default ``relevo``.
        patience_seconds: How long an answer may take.

    Raises:
        Invalid: The URL cannot be read.
        Unavailable: The extra ``redis`` is not installed.
    """

    def __init__(self, url: str, patience_seconds: float = PATIENCE_SECONDS) -> None:
        if redis is None:
            raise Unavailable("RELEVO_ONLINE_URL names Redis, which needs an extra: pip install 'relevo[redis]'.")
        plain, prefix = split_prefix(url)
        self._prefix = f"{prefix}:".encode()
        self._shown = shown(url)
        try:
            self._redis: Any = redis.Redis.from_url(
                plain,
                socket_connect_timeout=min(CONNECT_SECONDS, patience_seconds),
                socket_timeout=patience_seconds,
                # Once more at once: an idle connection of before a restart of Redis fails on first use.
                retry=Retry(NoBackoff(), 1),
                retry_on_error=[redis.ConnectionError],
                decode_responses=False,
            )
        except ValueError as error:
            raise Invalid(f"RELEVO_ONLINE_URL cannot be read: {error}") from None
        self._swap = self._redis.register_script(_SWAP)

    def read(self, names: Sequence[bytes]) -> list[bytes | None]:
        """See ``Storage``."""
        if not names:
            return []
        keys = [self._prefix + name for name in names]
        found: list[bytes | None] = self._asked(lambda: self._redis.mget(keys))
        return found

    def changes(self) -> None:
        """See ``Storage``."""

    def put(self, entries: Sequence[tuple[bytes, bytes]]) -> None:
        """See ``Storage``."""
        for start in range(0, len(entries), _PUT_AT_ONCE):
            some = {self._prefix + name: value for name, value in entries[start : start + _PUT_AT_ONCE]}
            self._asked(lambda some=some: self._redis.mset(some))  # type: ignore[misc]

    def swap(
        self, name: bytes, before: bytes | None, after: bytes, entries: Sequence[tuple[bytes, bytes]] = ()
    ) -> bool:
        """See ``Storage``."""
        keys = [self._prefix + each for each in (name, *(entry for entry, _ in entries))]
        values = [before or b"", after, *(value for _, value in entries)]
        return bool(self._asked(lambda: self._swap(keys=keys, args=values)))

    def drop(self, prefixes: Iterable[bytes]) -> None:
        """See ``Storage``. Walks over all names of the database, a thousand at a time."""
        begins = tuple(self._prefix + prefix for prefix in prefixes)
        if begins:
            self._asked(lambda: self._drop(begins))

    def describe(self) -> Mapping[str, str]:
        """See ``Storage``. The items of the command INFO."""
        return {name: str(value) for name, value in self._asked(self._redis.info).items()}

    def close(self) -> None:
        """See ``Storage``."""
        self._redis.close()

    def _drop(self, begins: tuple[bytes, ...]) -> None:
        cursor = 0
        while True:
            cursor, keys = self._redis.scan(cursor, count=1_000)
            if old := [key for key in keys if key.startswith(begins)]:
                self._redis.unlink(*old)
            if cursor == 0:
                return

    def _asked(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except redis.RedisError as error:
            raise Unavailable(
                f"The online store at {self._shown} cannot be used: {error}.",
                hint="Lookups go on as soon as Redis answers again; relevo doctor tells more.",
            ) from error


def split_prefix(url: str) -> tuple[str, str]:
    """The URL for Redis, and the prefix of all names.

    >>> split_prefix("redis://cache:6379/2?prefix=blue")
    ('redis://cache:6379/2', 'blue')
    """
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    prefix = query.pop("prefix", [DEFAULT_PREFIX])[-1]
    return urlunsplit(parts._replace(query=urlencode(query, doseq=True))), prefix


def shown(url: str) -> str:
    """Where the Redis is, without its password."""
    parts = urlsplit(url)
    where = parts.path if parts.scheme == "unix" else f"{parts.hostname or 'localhost'}:{parts.port or 6379}"
    return f"Redis {where}"
