"""What the online store needs of a place that keeps bytes by name: SQLite embedded, Redis for scale-out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from relevo.errors import Invalid

#: How long a writer waits for an answer, or for another writer.
PATIENCE_SECONDS = 30.0
REDIS_SCHEMES = ("redis://", "rediss://", "unix://")


class Storage(Protocol):
    """Raw storage. Names and values are bytes. Not thread-safe: one object a thread; many processes may use one place.

    Each method raises ``Unavailable`` when the place cannot be reached, or cannot take what is written.
    """

    def read(self, names: Sequence[bytes]) -> list[bytes | None]:
        """The values by place in ``names``, all of one moment; None where there is none."""
        ...

    def changes(self) -> int | None:
        """A number that is another one once somebody has written; None where asking costs what reading costs."""
        ...

    def put(self, entries: Sequence[tuple[bytes, bytes]]) -> None:
        """Keep entries that nobody reads yet. When it fails, any part of them may be there."""
        ...

    def swap(
        self, name: bytes, before: bytes | None, after: bytes, entries: Sequence[tuple[bytes, bytes]] = ()
    ) -> bool:
        """Set ``name`` to ``after`` and replace ``entries``, at once and whole or not at all.

        False, and nothing done, when the value of ``name`` is not ``before``.
        """
        ...

    def drop(self, prefixes: Iterable[bytes]) -> None:
        """Delete every entry whose name begins with one of ``prefixes``."""
        ...

    def describe(self) -> Mapping[str, str]:
        """What the place says of itself, for people; needs an answer from it."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


def is_redis(place: Path | str) -> bool:
    """Whether ``place`` is a URL of Redis."""
    return isinstance(place, str) and place.startswith(REDIS_SCHEMES)


def open_storage(place: Path | str, patience_seconds: float = PATIENCE_SECONDS) -> Storage:
    """The storage at ``place``: the path of a SQLite file, which is made when it is not there, or a URL of Redis.

    Raises:
        Invalid: It is neither.
        Unavailable: The extra for Redis is not installed.
    """
    if is_redis(place):
        from relevo.features.redis_storage import RedisStorage

        return RedisStorage(str(place), patience_seconds)
    if isinstance(place, str) and "://" in place:
        scheme = place.split("://")[0]
        raise Invalid(
            f"RELEVO_ONLINE_URL must begin with redis://, rediss:// or unix://, got {scheme}://",
            hint="Without it, the online store is a SQLite file in the home folder.",
        )
    from relevo.features.sqlite_storage import SqliteStorage

    return SqliteStorage(Path(place), patience_seconds)
