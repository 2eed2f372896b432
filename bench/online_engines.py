"""Online stores over the same files: ours, and a hand-written select and pipeline (``children.serve``).

The hand-written ones keep one msgpack value a view and entity, and no times: the least there is to read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec
from children import microseconds_of, seconds_of, serve

Told = dict[str, Any]
Row = dict[str, Any]
MODEL = "bench"


class Engine(Protocol):
    """What is filled and asked."""

    def materialise(self, until: str) -> None: ...

    def asked(self, keys: list[Row]) -> Any:
        """What ``look_up`` takes for these keys; made before anything is timed."""
        ...

    def look_up(self, asked: Any) -> Any: ...

    def answers(self, keys: list[Row]) -> list[Row]: ...


class Relevo:
    """``Materialiser`` and ``OnlineStore.lookup``, whose answer is a dict a row."""

    def __init__(self, place: str, tables: Told) -> None:
        from relevo.contract.model import Source
        from relevo.features import Entity, FeatureView, latest
        from relevo.features.materialise import Materialiser
        from relevo.features.online import OnlineStore

        self._store = OnlineStore(place if "://" in place else Path(place))
        package, sources = Path(tables["folder"]), []
        module = f"{package.name}_loaders"  # one process opens stores of several folders
        loaders = ["import polars as pl"]
        self._views = []
        for view in tables["views"]:
            name = view["source"]
            loaders.append(f"def {name}(): return pl.scan_parquet('{package / name}.parquet')")
            event, known = view["event"] or view["known"], view["known"] if view["event"] else None
            sources.append(
                Source(name=name, loader=f"{module}:{name}", key=(view["key"],), event_time=event, known_time=known)
            )
            entity = Entity(view["key"], view["key"])
            features = {column: latest(column) for column in view["columns"]}
            self._views.append(FeatureView(name, entity=entity, source=name, features=features))
        (package / f"{module}.py").write_text("\n".join(loaders) + "\n")
        self._materialiser = Materialiser(
            self._store, model=MODEL, views=self._views, sources=sources, package=package, origin="bench"
        )
        self._at = datetime.max.replace(tzinfo=UTC)

    def materialise(self, until: str) -> None:
        self._at = datetime.fromisoformat(until)
        self._materialiser.materialise(self._at)

    def asked(self, keys: list[Row]) -> Any:
        return keys, [self._at] * len(keys)

    def look_up(self, asked: Any) -> list[Row]:
        keys, at = asked
        return self._store.lookup(MODEL, self._views, keys, at)

    def answers(self, keys: list[Row]) -> list[Row]:
        return self.look_up(self.asked(keys))


class _Raw:
    """Names and values as a hand-written store would have them."""

    def __init__(self, place: str, tables: Told) -> None:
        self._place, self._tables = place, tables

    def entries(self) -> list[tuple[bytes, bytes]]:
        import polars as pl

        found = []
        for view in self._tables["views"]:
            rows = pl.read_parquet(f"{self._tables['folder']}/{view['source']}.parquet")
            values = map(msgspec.msgpack.encode, rows.select(view["columns"]).iter_rows())
            found += zip(self._names(view, rows[view["key"]].to_list()), values, strict=True)
        return found

    def asked(self, keys: list[Row]) -> Any:
        return [
            name for view in self._tables["views"] for name in self._names(view, [key[view["key"]] for key in keys])
        ]

    def rows(self, keys: list[Row], values: list[bytes]) -> list[Row]:
        """The values, in the order of ``asked``, by name."""
        rows: list[Row] = [{} for _ in keys]
        for number, view in enumerate(self._tables["views"]):
            for row, value in zip(rows, values[number * len(keys) :], strict=False):
                row.update(zip(view["columns"], msgspec.msgpack.decode(value), strict=True))
        return rows

    def _names(self, view: Told, keys: list[Any]) -> list[bytes]:
        return [f"{view['source']}:{key}".encode() for key in keys]


class Select(_Raw):
    """A select by primary key on an open connection; the values stay bytes."""

    def materialise(self, until: str) -> None:
        connection = sqlite3.connect(self._place, isolation_level=None)
        for pragma in ("journal_mode=WAL", "mmap_size=1073741824"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("CREATE TABLE entries (name BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO entries VALUES (?, ?)", self.entries())
        connection.execute("COMMIT")
        self._connection = connection

    def asked(self, keys: list[Row]) -> tuple[str, list[bytes]]:
        names = super().asked(keys)
        if len(names) <= 16:  # the faster way for each, as ours does it
            return f"SELECT {','.join(['(SELECT value FROM entries WHERE name = ?)'] * len(names))}", names
        return f"SELECT value FROM (VALUES {','.join(['(?)'] * len(names))}) LEFT JOIN entries ON name = column1", names

    def look_up(self, asked: tuple[str, list[bytes]]) -> Any:
        return self._connection.execute(*asked).fetchall()

    def answers(self, keys: list[Row]) -> list[Row]:
        return self.rows(keys, [value for row in self.look_up(self.asked(keys)) for value in row])


class Pipeline(_Raw):
    """A pipeline of GETs; the values stay bytes."""

    def materialise(self, until: str) -> None:
        import redis

        self._client = redis.Redis.from_url(self._place)
        self._client.mset(dict(self.entries()))

    def look_up(self, asked: list[bytes]) -> Any:
        pipeline = self._client.pipeline(transaction=False)
        for name in asked:
            pipeline.get(name)
        return pipeline.execute()

    def answers(self, keys: list[Row]) -> list[Row]:
        return self.rows(keys, self.look_up(self.asked(keys)))


ENGINES: dict[str, Callable[[str, Told], Engine]] = {"relevo": Relevo, "select": Select, "pipeline": Pipeline}
_opened: dict[str, Engine] = {}


def open_store(engine: str, place: str, tables: Told) -> None:
    """Get a new store ready; later calls name its place."""
    _opened[place] = ENGINES[engine](place, tables)


def materialise(place: str, until: str) -> float:
    """Seconds that filling the store takes, reading of the files included."""
    return seconds_of(lambda: _opened[place].materialise(until))[0]


def answers(place: str, keys: list[Row]) -> list[Row]:
    """What the store answers, a dict a key."""
    return _opened[place].answers(keys)


def lookups(place: str, keys: list[Row], entities: int, first: int, calls: int) -> list[float]:
    """Microseconds a call, for ``entities`` keys each."""
    engine = _opened[place]
    asked = [engine.asked(keys[start : start + entities]) for start in range(0, len(keys) - entities + 1, entities)]
    return microseconds_of(engine.look_up, asked, first, calls)


if __name__ == "__main__":
    serve({"open_store": open_store, "materialise": materialise, "answers": answers, "lookups": lookups})
