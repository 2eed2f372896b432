"""Feast, in an environment of its own: joins, materialising and lookups over the same files (``children.serve``).

Set up as its documentation advises: the registry is read once and cached without end, keys have the newest form, a
feature service names what is asked for, and materialising pulls the newest row of each entity in DuckDB first.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from children import microseconds_of, peak_mb, seconds_of, serve

Told = dict[str, Any]
SERVICE = "all_values"
_stores: dict[str, Any] = {}


def open_store(repository: str, tables: Told, online: dict[str, str]) -> None:
    """Declare the views of the tables in a new repository, which later calls name."""
    from feast import FeatureStore, RepoConfig

    path = Path(repository)
    path.mkdir(parents=True)
    settings = {
        "project": "bench",
        "provider": "local",
        "registry": {"path": str(path / "registry.db"), "cache_ttl_seconds": 0},
        "offline_store": {"type": "duckdb"},
        "online_store": online,
        "entity_key_serialization_version": 3,
        "materialization": {"pull_latest_features": True},
    }
    (path / "feature_store.yaml").write_text(_yaml(settings))
    store = FeatureStore(config=RepoConfig(**settings, repo_path=path))
    store.apply(_declared(tables))
    _stores[repository] = store, store.get_feature_service(SERVICE)


def join(repository: str, tables: Told, output: str | None = None) -> dict[str, Any]:
    """``get_historical_features`` for the spine, from its file to an Arrow table, which is not sorted."""
    import pandas as pd

    store, service = _stores[repository]
    is_as_known = any(view["event"] for view in tables["views"])
    before = peak_mb()

    def get() -> Any:
        spine = pd.read_parquet(f"{tables['folder']}/spine.parquet")
        return store.get_historical_features(
            entity_df=spine.rename(columns={tables["at"]: "event_timestamp"}),
            features=service,
            filter_by_created_timestamp=is_as_known,
        ).to_arrow()

    seconds, frame = seconds_of(get)
    found = {"seconds": seconds, "before_mb": before, "peak_mb": peak_mb(), "rows": len(frame)}
    if output is not None:
        import pyarrow.parquet

        columns = [view["columns"][0] for view in tables["views"]]
        kept = frame.select(["row", *columns])
        pyarrow.parquet.write_table(kept.rename_columns(["row", *(f"latest_{name}" for name in columns)]), output)
    return found


def materialise(repository: str, since: str, until: str) -> float:
    """Seconds that filling the online store takes."""
    store, _ = _stores[repository]
    return seconds_of(lambda: store.materialize(datetime.fromisoformat(since), datetime.fromisoformat(until)))[0]


def answers(repository: str, keys: list[Told]) -> list[Told]:
    """What the store answers, a dict a key."""
    return _rows(_look_up(repository)(keys))


def lookups(repository: str, keys: list[Told], entities: int, first: int, calls: int) -> list[float]:
    """Microseconds a call of the SDK, for ``entities`` keys each, until the answer is a dict."""
    return microseconds_of(_look_up(repository), _groups(keys, entities), first, calls)


def serve_http(repository: str, port: int) -> int:
    """Start the feature server with one worker; gives its process id. It ends with this process."""
    command = [str(Path(sys.executable).with_name("feast")), "--chdir", repository, "serve", "--port", str(port)]
    return subprocess.Popen(
        [*command, "--no-access-log", "--registry_ttl_sec", "3600", "--max-requests", "0"], stdin=subprocess.DEVNULL
    ).pid


def _look_up(repository: str) -> Callable[[list[Told]], Told]:
    store, service = _stores[repository]
    return lambda keys: store.get_online_features(features=service, entity_rows=keys).to_dict()


def _rows(columns: Told) -> list[Told]:
    names = list(columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _groups(keys: list[Told], entities: int) -> list[list[Told]]:
    return [keys[start : start + entities] for start in range(0, len(keys) - entities + 1, entities)]


def _declared(tables: Told) -> list[Any]:
    from datetime import timedelta

    from feast import FeatureService, FeatureView, Field, FileSource
    from feast.data_format import ParquetFormat

    views = []
    for view in tables["views"]:
        path = f"{tables['folder']}/{view['source']}.parquet"
        # With an event time the known time is when the row was created; else it is the only time.
        times = {"timestamp_field": view["event"] or view["known"]}
        if view["event"]:
            times["created_timestamp_column"] = view["known"]
        types = _types(path)
        views.append(
            FeatureView(
                name=view["source"],
                entities=[_entity(view["key"], types[view["key"]])],
                schema=[Field(name=name, dtype=types[name]) for name in view["columns"]],
                source=FileSource(name=view["source"], path=path, file_format=ParquetFormat(), **times),
                ttl=timedelta(hours=view["ttl_hours"] or 0),  # 0: none
            )
        )
    entities = {entity.name: entity for view in tables["views"] for entity in [_entity_of(view, tables)]}
    return [*entities.values(), *views, FeatureService(name=SERVICE, features=views)]


def _entity_of(view: Told, tables: Told) -> Any:
    return _entity(view["key"], _types(f"{tables['folder']}/{view['source']}.parquet")[view["key"]])


@cache
def _entity(key: str, kind: Any) -> Any:
    from feast import Entity

    return Entity(name=key, join_keys=[key], value_type=kind.to_value_type())


@cache
def _types(path: str) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.parquet
    from feast import types

    found = {}
    for field in pyarrow.parquet.read_schema(path):
        if pa.types.is_integer(field.type):
            found[field.name] = types.Int64
        elif pa.types.is_floating(field.type):
            found[field.name] = types.Float64
        else:
            found[field.name] = types.String
    return found


def _yaml(settings: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(settings)


if __name__ == "__main__":
    serve(
        {
            "open_store": open_store,
            "join": join,
            "materialise": materialise,
            "answers": answers,
            "lookups": lookups,
            "serve_http": serve_http,
        }
    )
