"""A request that an endpoint answers as it stands, for the line that people paste."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import polars as pl

from relevo.platform.settings import Settings
from relevo.predictions.log import PredictionLog
from relevo.registry.bundles import read_manifest
from relevo.registry.model import Manifest
from relevo.registry.service import Registry
from relevo.runtimes.loading import PROBE_FILE, decode_probe

_EARLIEST, _LATEST = datetime(1970, 1, 2, tzinfo=UTC), datetime(9998, 1, 1, tzinfo=UTC)


def example_row(registry: Registry, log: PredictionLog, model: str, version: int) -> dict[str, object]:
    """Values for what a caller has to send: the inputs that no feature view fills, and the keys that find features.

    They are a row of the holdout that is sealed in the bundle; keys come from a logged prediction, and are null until
    there is one.
    """
    manifest, row = _sealed(registry.fetch(registry.version(model, version).bundle))
    values = dict(row)
    unknown = [key.name for key in manifest.signature.keys]
    return values | _logged_keys(log, model, unknown) if unknown else values


def gateway_address(settings: Settings, seen_as: str | None) -> str:
    """Where applications call: a gateway that listens everywhere is named as the caller named this host."""
    is_everywhere = settings.host in {"0.0.0.0", "::", ""}  # noqa: S104, compared, not bound
    return f"http://{seen_as if is_everywhere and seen_as else settings.host}:{settings.gateway_port}"


def curl_line(gateway: str, model: str, row: dict[str, object]) -> str:
    """The command to paste into a shell; its token comes from the environment variable ``RELEVO_TOKEN``."""
    body = json.dumps({"dataframe_split": {"columns": list(row), "data": [list(row.values())]}}, ensure_ascii=False)
    return (
        f"curl -s {gateway}/endpoints/{model}/invocations \\\n"
        '  -H "Authorization: Bearer $RELEVO_TOKEN" \\\n'
        "  -H 'Content-Type: application/json' \\\n"
        f"  -d {shlex.quote(body)}"
    )


@lru_cache(maxsize=64)
def _sealed(folder: Path) -> tuple[Manifest, tuple[tuple[str, object], ...]]:
    """The manifest of a bundle and one row of its probe; what is sealed never changes."""
    manifest = read_manifest(folder)
    probe = decode_probe((folder / PROBE_FILE).read_bytes())
    inputs = manifest.signature.inputs
    asked = [place for place, column in enumerate(inputs) if column.is_asked]
    rows = sorted(probe.rows, key=lambda row: sum(row[place] is None for place in asked))
    row = rows[0] if rows else [None] * len(inputs)
    return manifest, tuple((inputs[place].name, row[place]) for place in asked)


def _logged_keys(log: PredictionLog, model: str, names: list[str]) -> dict[str, object]:
    rows = log.window(model, _EARLIEST, _LATEST)
    known = [name for name in names if f"k_{name}" in rows.collect_schema().names()]
    values: dict[str, object] = dict.fromkeys(names)
    if known:
        first = rows.select(pl.col(f"k_{name}").alias(name) for name in known).drop_nulls().head(1).collect()
        values |= next(first.iter_rows(named=True), {})
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}
