"""Typed columns of the prediction and label tables, made from records.

``x_<input>`` and ``k_<key>`` take their types from the version's layout. When a later version gives an input another
type, its values go to ``x_<input>:<type>`` beside the old column, and `merged` reads the two as one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec
import polars as pl

from relevo.predictions.frames import Layout, Record, marked
from relevo.predictions.store import LabelRow

TIME = pl.Datetime("us", "UTC")
PREDICTIONS: dict[str, pl.DataType] = {
    "prediction_id": pl.String(),
    "version": pl.Int64(),
    "request_id": pl.String(),
    "asked_at": TIME,
    "logged_at": TIME,
    "materialised_through": TIME,
    "looked_up": pl.List(pl.String()),  # names of the inputs that the online store gave; null: it was not logged
    "status": pl.String(),
    "error": pl.String(),
    "prediction": pl.Float64(),
    "probabilities": pl.List(pl.Float64()),
    "request_body": pl.Binary(),
    "sample": pl.Float64(),  # the share of such rows that is logged; null: all
    "shadow_of": pl.String(),  # the prediction that the row's caller got of another version; null: the caller got this
}
LABELS: dict[str, pl.DataType] = {
    "prediction_id": pl.String(),
    "revision": pl.Int64(),
    "value": pl.Float64(),
    "outcome": pl.String(),
    "known_at": TIME,
    "received_at": TIME,
}
_TYPES: dict[str, pl.DataType] = {
    "float": pl.Float64(),
    "integer": pl.Int64(),
    "text": pl.String(),
    "boolean": pl.Boolean(),
    "time": TIME,
}
_NUMERIC = (pl.Float64(), pl.Int64(), pl.Boolean())

_layout_decoder = msgspec.msgpack.Decoder(Layout)


def prediction_rows(records: Sequence[Record], existing: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """One row for each predicted row of ``records``; a request that failed before it had rows gives one.

    Args:
        records: Of one endpoint, in any mix of versions.
        existing: Columns of the table that the rows go to; empty for a new one.
    """
    groups: dict[bytes, list[Record]] = {}
    for record in records:
        groups.setdefault(bytes(record.layout), []).append(record)
    types = dict(existing)
    frames = []
    for encoded, group in groups.items():
        frame = _group_rows(group, _layout(encoded), types)
        types.update(frame.schema)
        frames.append(frame)
    return pl.concat(frames, how="diagonal")


def label_rows(labels: Iterable[LabelRow]) -> pl.DataFrame:
    """One row a label; ``outcome`` is ``known``, or ``none`` when there never will be one."""
    rows = [
        (
            label.prediction_id,
            label.revision,
            label.value,
            "none" if label.value is None else "known",
            label.known_at,
            label.received_at,
        )
        for label in labels
    ]
    return pl.DataFrame(rows, schema=LABELS, orient="row")


def merged(frame: pl.LazyFrame) -> pl.LazyFrame:
    """``frame`` with ``x_a:float`` and the like folded into ``x_a``: as numbers if all of them are, else as text."""
    schema = frame.collect_schema()
    others: dict[str, list[str]] = {}
    for name in schema:
        column, _, kind = name.rpartition(":")
        if column in schema and kind in _TYPES:
            others.setdefault(column, []).append(name)
    if not others:
        return frame
    folded = []
    for column, names in others.items():
        parts = [column, *names]
        kind_of_all = pl.Float64() if all(schema[part] in _NUMERIC for part in parts) else pl.String()
        folded.append(pl.coalesce(pl.col(part).cast(kind_of_all) for part in parts).alias(column))
    return frame.with_columns(folded).drop([name for names in others.values() for name in names])


@lru_cache(256)
def _layout(encoded: bytes) -> Layout:
    return _layout_decoder.decode(encoded)


def _group_rows(records: Sequence[Record], layout: Layout, existing: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Rows of records that share a layout."""
    base: dict[str, list[Any]] = {name: [] for name in PREDICTIONS if name != "looked_up"}
    looked_up: list[bytes | None] = []
    inputs: list[Sequence[Any]] = []
    keys: list[Sequence[Any]] = []
    no_inputs: list[Any] = [None] * len(layout.inputs)
    no_keys: list[Any] = [None] * len(layout.keys)
    for record in records:
        count = _row_count(record)
        _extend(base, record, count)
        looked_up.extend([record.looked_up] * count)
        inputs.extend(record.inputs or [no_inputs] * count)
        keys.extend(record.keys or [no_keys] * count)
    series = {name: _times_or_values(name, values) for name, values in base.items()}
    series["looked_up"] = _looked_up(looked_up, layout)
    columns = [series[name] for name in PREDICTIONS]
    columns += _value_columns("x_", layout.inputs, inputs, existing)
    columns += _value_columns("k_", layout.keys, keys, existing)
    return pl.DataFrame(columns)


def fits(record: Record) -> bool:
    """Whether the lists of ``record`` have as many rows and columns as they say, so that it can become rows."""
    try:
        layout = _layout(bytes(record.layout))
    except msgspec.MsgspecError:
        return False
    count = _row_count(record)
    lists = (record.ids, record.asked_at_us, record.predictions, record.inputs, record.keys, record.shadow_of or ())
    return (
        all(len(values) in (0, count) for values in lists)
        and all(len(row) == len(layout.inputs) for row in record.inputs)
        and all(len(row) == len(layout.keys) for row in record.keys)
        and all(kind in _TYPES for _, kind in (*layout.inputs, *layout.keys))
        and all(place < len(layout.inputs) for place in marked(record.looked_up or b""))
    )


def _row_count(record: Record) -> int:
    return max(len(record.ids), len(record.asked_at_us), 1)


def _extend(base: dict[str, list[Any]], record: Record, count: int) -> None:
    """Append ``count`` rows of ``record`` to the lists in ``base``."""
    base["prediction_id"].extend(record.ids or [None] * count)
    base["shadow_of"].extend(record.shadow_of or [None] * count)
    base["asked_at"].extend(record.asked_at_us or [None] * count)
    predictions: Sequence[float | Sequence[float] | None] = record.predictions or [None] * count
    for prediction in predictions:
        if isinstance(prediction, Sequence):
            base["prediction"].append(_most_probable(prediction))
            base["probabilities"].append(prediction)
        else:
            base["prediction"].append(prediction)
            base["probabilities"].append(None)
    for name, value in (
        ("version", record.version),
        ("request_id", record.request_id),
        ("logged_at", record.logged_at_us),
        ("materialised_through", record.materialised_through_us),
        ("status", record.status),
        ("error", record.error),
        ("request_body", record.body),
        ("sample", record.sample),
    ):
        base[name].extend([value] * count)


def _most_probable(probabilities: Sequence[float]) -> float | None:
    """The index of the class with the largest probability, as a label would state it."""
    return float(max(range(len(probabilities)), key=probabilities.__getitem__)) if probabilities else None


def _times_or_values(name: str, values: list[Any]) -> pl.Series:
    kind = PREDICTIONS[name]
    if kind == TIME:
        return pl.Series(name, values, dtype=pl.Int64).cast(kind)
    return pl.Series(name, values, dtype=kind)


def _looked_up(encoded: Sequence[bytes | None], layout: Layout) -> pl.Series:
    """The names of the inputs that were looked up, a list a row; requests of a version differ in few ways."""
    places = {marks: place for place, marks in enumerate(dict.fromkeys(encoded))}
    names = [None if marks is None else [layout.inputs[place][0] for place in marked(marks)] for marks in places]
    kinds = pl.Series("looked_up", names, dtype=PREDICTIONS["looked_up"])
    return kinds.gather([places[marks] for marks in encoded])


def _value_columns(
    prefix: str,
    columns: Sequence[tuple[str, str]],
    rows: Sequence[Sequence[Any]],
    existing: Mapping[str, pl.DataType],
) -> list[pl.Series]:
    """A series for each declared column; a name that is taken by another type gets its own type as a suffix."""
    if not columns:
        return []
    result = []
    for (name, kind), values in zip(columns, zip(*rows, strict=True), strict=True):
        dtype = _TYPES[kind]
        column = f"{prefix}{name}"
        if existing.get(column, dtype) != dtype:
            column = f"{column}:{kind}"
        result.append(pl.Series(column, values, dtype=dtype, strict=False))
    return result
