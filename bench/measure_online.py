"""Online stores: filling them and looking values up, ours, Feast's and hand-written ones.

Each store is in a process of its own, which stays for all rounds; the processes are asked in turn.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
from children import microseconds_of
from peers import python_of
from processes import Child, Stopped
from report import Report
from tables import END, START, Tables, newest

from redis_server import Redis

#: By the name that the report gives: the script, the engine in it, and where its store is.
RELEVO_SQLITE, RELEVO_REDIS = "Relevo, SQLite", "Relevo, Redis"
FEAST_SQLITE, FEAST_REDIS = "Feast SDK, SQLite", "Feast SDK, Redis"
FEAST_HTTP = "Feast HTTP server, SQLite"
SELECT, PIPELINE = "bare SQLite select", "bare Redis pipeline"
FILLED = (RELEVO_SQLITE, FEAST_SQLITE, RELEVO_REDIS, FEAST_REDIS)
ENTITIES = (1, 100)
CALLS = {1: 400, 100: 40}
QUESTIONS = 4_000
CHECKED = 1_000
_SERVES_WITHIN = 120.0  # seconds

Row = dict[str, Any]


class Store:
    """One online store and the process that has it open."""

    def __init__(self, name: str, child: Child, folder: Path, server: Redis) -> None:
        self.name, self._child, self._folder, self._server = name, child, folder, server
        self._is_ours, self._is_redis = "Feast" not in name, "Redis" in name
        self._place, self._number = "", 0

    def fill(self, tables: Tables, *, since: str = START.isoformat(), until: str = END.isoformat()) -> float:
        """Seconds that filling a new, empty store takes."""
        self._number += 1
        place = self._folder / f"{self.name.replace(', ', '-').replace(' ', '-')}-{self._number}"
        owner = "feast" if not self._is_ours else "raw" if self.name == PIPELINE else "relevo"
        if self._is_redis:
            self._server.empty(owner)
        if not self._is_ours:
            online = {"type": "sqlite", "path": str(place / "online.db")}
            if self._is_redis:
                online = {"type": "redis", "connection_string": self._server.connection_string(owner)}
            self._place = str(place)
            self._child.call("open_store", repository=self._place, tables=tables.told(), online=online)
            return float(self._child.call("materialise", repository=self._place, since=since, until=until))
        engine = {SELECT: "select", PIPELINE: "pipeline"}.get(self.name, "relevo")
        self._place = self._server.url(owner) if self._is_redis else f"{place}.db"
        self._child.call("open_store", engine=engine, place=self._place, tables=tables.told())
        return float(self._child.call("materialise", place=self._place, until=until))

    def answers(self, keys: list[Row]) -> list[Row]:
        found: list[Row] = self._child.call("answers", **self._which, keys=keys)
        return found

    def lookups(self, keys: list[Row], entities: int, first: int, calls: int) -> list[float]:
        given: list[float] = self._child.call(
            "lookups", **self._which, keys=keys, entities=entities, first=first, calls=calls
        )
        return given

    @contextlib.contextmanager
    def served(self) -> Iterator[_Server]:
        """Feast's feature server over this store."""
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
        self._child.call("serve_http", repository=self._place, port=port)
        with contextlib.closing(_Server(port)) as server:
            yield server

    @property
    def _which(self) -> dict[str, str]:
        return {"place" if self._is_ours else "repository": self._place}


class _Server:
    """A client of Feast's server on one open connection."""

    def __init__(self, port: int) -> None:
        deadline = time.monotonic() + _SERVES_WITHIN
        while True:
            self._connection = HTTPConnection("127.0.0.1", port, timeout=30)
            try:
                self._connection.request("GET", "/health")
                self._connection.getresponse().read()
                return
            except OSError:
                self._connection.close()
                if time.monotonic() > deadline:
                    raise Stopped("the feature server of Feast did not answer", _SERVES_WITHIN, 0.0) from None
                time.sleep(0.2)

    def close(self) -> None:
        self._connection.close()

    def look_up(self, body: bytes) -> Row:
        """Columns of values by name, as the JSON of the answer has them."""
        self._connection.request("POST", "/get-online-features", body, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        said = json.loads(response.read())
        if response.status != 200:
            raise RuntimeError(f"the feature server of Feast answers {response.status}: {said}")
        names = said["metadata"]["feature_names"]
        return {name: result["values"] for name, result in zip(names, said["results"], strict=True)}

    def answers(self, keys: list[Row]) -> list[Row]:
        columns = self.look_up(_body(keys))
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def lookups(self, keys: list[Row], entities: int, first: int, calls: int) -> list[float]:
        bodies = [_body(keys[start : start + entities]) for start in range(0, len(keys) - entities + 1, entities)]
        return microseconds_of(self.look_up, bodies, first, calls)


def _body(keys: list[Row]) -> bytes:
    entities = {name: [key[name] for key in keys] for name in keys[0]}
    return json.dumps({"feature_service": "all_values", "entities": entities}).encode()


@contextlib.contextmanager
def opened(folder: Path, server: Redis) -> Iterator[dict[str, Store]]:
    """Every store by its name, each with its process."""
    with contextlib.ExitStack() as stack:
        stores = {}
        for name in (*FILLED, SELECT, PIPELINE):
            python = python_of("feast") if "Feast" in name else sys.executable
            script = "feast_engine.py" if "Feast" in name else "online_engines.py"
            child = stack.enter_context(Child(script, python=python, log=folder / "online.log"))
            stores[name] = Store(name, child, folder, server)
        yield stores


def measure_materialising(
    report: Report, stores: dict[str, Store], tables: Tables, shape: str, rounds: int, **range_: str
) -> None:
    """Rows of the sources a second, each store new and empty; all of the rows are read, the newest a key stay."""
    rows = sum(tables.rows[view.source] for view in tables.views)
    for number in range(rounds):
        for name in FILLED:
            seconds = stores[name].fill(tables, **range_)
            found = {"seconds": seconds, "rows": rows, "rows_a_second": rows / seconds}
            report.measurements.append({"round": number, "part": f"materialise, {shape}", "engine": name} | found)


def measure_lookups(report: Report, stores: dict[str, Store], tables: Tables, rounds: int) -> None:
    """Calls for 1 and for 100 keys, which rotate; first all stores must give the values of the files."""
    keys = _questions(tables)
    expected = newest(tables)
    for name in (SELECT, PIPELINE):
        stores[name].fill(tables)
    with stores[FEAST_SQLITE].served() as served:
        engines: dict[str, Store | _Server] = dict(stores) | {FEAST_HTTP: served}
        for name, engine in engines.items():
            for asked in (keys[:CHECKED], keys[CHECKED : CHECKED + 1]):
                _require_answers(name, asked, engine.answers(asked), expected)
        report.checks |= {"lookups_compared": CHECKED + 1, "lookups_engines": list(engines)}
        for number in range(rounds):
            for entities in ENTITIES:
                calls = CALLS[entities]
                for name, engine in engines.items():
                    times = engine.lookups(keys, entities, number * calls, calls)
                    found = {"p50_us": float(np.median(times)), "times_us": [round(time, 1) for time in times]}
                    report.measurements.append(
                        {"round": number, "part": "lookup", "engine": name, "entities": entities} | found
                    )


def _questions(tables: Tables) -> list[Row]:
    key = tables.views[0].key
    random = np.random.default_rng(11)
    return [{key: int(one)} for one in random.choice(tables.rows[tables.views[0].source], QUESTIONS, replace=False)]


def _require_answers(name: str, asked: list[Row], given: list[Row], expected: dict[Any, Row]) -> None:
    if len(given) != len(asked):
        sys.exit(f"{name}: {len(given)} answers to {len(asked)} keys")
    for key, answer in zip(asked, given, strict=True):
        (one,) = key.values()
        values = {column: answer.get(column) for column in expected[one]}
        if values != expected[one]:
            sys.exit(f"{name}: {values} of {key}, expected {expected[one]}")
