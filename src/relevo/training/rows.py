"""Builds the rows of a run: who was asked what and when, what was known then, and what came of it.

Runs in child processes only. The rows are kept as one Parquet file; prefixes keep a team's names apart from ours.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from relevo.contract.model import Contract, Task
from relevo.datasets.tables import content_digest, scan_version
from relevo.errors import Invalid
from relevo.features.column_values import with_transforms
from relevo.features.expressions import Transform
from relevo.features.model import FeatureView
from relevo.features.point_in_time import attach
from relevo.registry.model import Manifest
from relevo.runtimes.model import Signature
from relevo.runtimes.signature import derive_signature
from relevo.training import policy
from relevo.training.model import Run

INPUT, CHAMPION_INPUT, SLICE, KEY = "x_", "c_", "s_", "k_"
AT, LABEL, IS_HELD_OUT, BUCKET = "at", "label", "is_held_out", "bucket"

_LABEL = "__label"


@dataclass(frozen=True, slots=True)
class Built:
    """What ``build`` made, beside the file of rows.

    ``digest`` covers names, types and values of the rows, not the bytes of the file: another writer gives the same one.
    What the champion's inputs were, and keys that are no inputs, are no part of it.
    """

    signature: Signature
    rows: int
    fitted: int
    held_out: int
    unlabelled: int
    classes: tuple[str, ...]
    split: policy.Split | None  # None: without event time, split by the digest of the key
    holdout_fraction: float | None
    digest: str


def build(run: Run, versions: Mapping[str, int], champion: Manifest | None, path: Path) -> Built:
    """Write the rows of a run to ``path``.

    Args:
        run: Whose rows.
        versions: The version of each source's table.
        champion: The champion's manifest, when it looks features up in another way; its inputs are added.
        path: The Parquet file.

    Raises:
        Invalid: Nothing is left to fit on or to hold out, or the label is none.
    """
    contract = run.contract
    tables = {name: scan_version(Path(run.tables), name, version) for name, version in versions.items()}
    spine, unlabelled = _spine(contract, tables, run.as_of)
    spine, split = _held_out(spine, contract, run.as_of)
    features = _attached(spine, run.views, run.transforms, tables, contract)
    labels, classes = _encoded(spine, contract)
    dtypes = {name: str(kind) for name, kind in features.schema.items()}
    signature = derive_signature(contract, run.views, dtypes, classes, run.transforms)
    columns = [features[column.name].alias(INPUT + column.name) for column in signature.inputs]
    columns += [features[name].alias(SLICE + name) for name in contract.monitor.slices]
    columns += [features[column.name].alias(KEY + column.name) for column in signature.keys]
    if champion is not None:
        theirs = _attached(spine, champion.views, champion.transforms, tables, contract)
        columns += [theirs[column.name].alias(CHAMPION_INPUT + column.name) for column in champion.signature.inputs]
    at = spine[contract.ask.at] if contract.ask.at else pl.Series([None] * spine.height, dtype=pl.Datetime("us", "UTC"))
    rows = pl.DataFrame([at.alias(AT), labels.alias(LABEL), spine[IS_HELD_OUT], spine[BUCKET], *columns])
    temporary = path.with_suffix(".writing")
    rows.write_parquet(temporary)
    temporary.replace(path)
    held_out = int(rows[IS_HELD_OUT].sum())
    return Built(
        signature=signature,
        rows=rows.height,
        fitted=rows.height - held_out,
        held_out=held_out,
        unlabelled=unlabelled,
        classes=classes,
        split=split,
        holdout_fraction=contract.training.holdout if isinstance(contract.training.holdout, float) else None,
        digest=content_digest(rows.select(pl.exclude(f"^({CHAMPION_INPUT}|{KEY}).*$"))),
    )


def changed_datasets(run: Run, pinned: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The pinned datasets whose content is not what their digest says: another writer has changed the table."""
    changed = []
    for name, one in pinned.items():
        source = run.contract.source(name)
        naming = list(dict.fromkeys([*([source.event_time] if source.event_time else []), *source.key]))
        frame = scan_version(Path(run.tables), name, int(one["version"])).sort(naming).collect()
        if content_digest(frame) != one["digest"]:
            changed.append(name)
    return changed


def _spine(contract: Contract, tables: Mapping[str, pl.LazyFrame], as_of: datetime) -> tuple[pl.DataFrame, int]:
    """The asked rows whose label has had its time, with the label, in the order of time; and how many have none."""
    asked = tables[contract.ask.source]
    label = contract.label
    key = list(contract.source(contract.ask.source).key)
    if label.source == contract.ask.source:
        spine = asked.with_columns(pl.col(label.column).alias(_LABEL))
    else:
        outcomes = tables[label.source].select(*key, pl.col(label.column).alias(_LABEL)).unique(key, keep="last")
        spine = asked.join(outcomes, on=key, how="left")
    if contract.ask.at is not None:
        spine = spine.filter(pl.col(contract.ask.at) < policy.matured_before(as_of, label))
        spine = spine.sort(contract.ask.at, *key)
    else:
        spine = spine.sort(key)
    frame = spine.collect()
    labelled = frame.filter(pl.col(_LABEL).is_not_null())
    if labelled.is_empty():
        raise Invalid(
            f"source {contract.ask.source}: none of {frame.height} matured rows has a label {label.column!r}"
            f"{_matured(contract, as_of)}",
            hint="Labels count once available_after and allowance have passed since the ask.",
        )
    return labelled, frame.height - labelled.height


def _held_out(spine: pl.DataFrame, contract: Contract, as_of: datetime) -> tuple[pl.DataFrame, policy.Split | None]:
    """The spine inside the window, each row marked as held out or not."""
    key, training = list(contract.source(contract.ask.source).key), contract.training
    at = contract.ask.at
    # A row's bucket depends on its key alone: it is on the same side in every run, so no champion ever saw it.
    keys = spine.select(pl.concat_str(key, separator="\x1f", ignore_nulls=True)).to_series().to_list()
    buckets = pl.Series(BUCKET, [zlib.crc32(text.encode()) % policy.BUCKETS for text in keys], dtype=pl.Int32)
    spine = spine.with_columns(buckets)
    if at is None:
        if isinstance(training.holdout, timedelta):
            raise Invalid("a holdout that is a duration needs ask.at; give a fraction", field="training.holdout")
        split = None
        spine = spine.with_columns((pl.col(BUCKET) < training.holdout * policy.BUCKETS).alias(IS_HELD_OUT))
    else:
        first_held_out = None
        if isinstance(training.holdout, float):
            first_held_out = spine[at][min(spine.height - 1, round(spine.height * (1 - training.holdout)))]
        end = policy.matured_before(as_of, contract.label)
        split = policy.split(training, last=spine[at].max(), end=end, start_of_fraction=first_held_out)  # type: ignore[arg-type]
        spine = spine.with_columns((pl.col(at) >= split.holdout_start).alias(IS_HELD_OUT))
        if split.start is not None:
            spine = spine.filter(pl.col(at) >= split.start)
    held_out = int(spine[IS_HELD_OUT].sum())
    if held_out in (0, spine.height):
        missing = "held out" if held_out == 0 else "fitted on"
        raise Invalid(
            f"source {contract.ask.source}: of {spine.height} labelled rows none is {missing}"
            f"{_matured(contract, as_of)}; holdout is {_words(training.holdout)}",
            field="training.holdout",
        )
    return spine, split


def _attached(
    spine: pl.DataFrame,
    views: Sequence[FeatureView],
    transforms: tuple[Transform, ...],
    tables: Mapping[str, pl.LazyFrame],
    contract: Contract,
) -> pl.DataFrame:
    """The spine's columns that may be seen, with the features of the views as known when asked, and the transforms."""
    ask = contract.ask
    keys = [name for view in views for name in view.entity.key]
    seen = list(dict.fromkeys([*ask.inputs, *keys, *contract.monitor.slices, *([ask.at] if ask.at else [])]))
    lacking = [name for name in seen if name not in spine.columns]
    if lacking:
        raise Invalid(f"source {ask.source}: column {lacking[0]!r} is needed, and is not in what its loader gives")
    frame = spine.select(seen)
    if views:
        if ask.at is None:
            message = "feature views need ask.at: without it nothing says what was known when asked"
            raise Invalid(message, field="ask.at")
        frame = attach(frame.lazy(), views, tables, sources=contract.sources, at=ask.at).collect()
    # A transform sees what a request has: no other columns of the spine.
    features = [feature.name for view in views for feature in view.features]
    given = frame.select(list(dict.fromkeys([*ask.inputs, *features, *([ask.at] if ask.at else [])])))
    names = [transform.name for transform in transforms]
    return frame.with_columns(with_transforms(given, transforms, ask.at).select(names).get_columns())


def _encoded(spine: pl.DataFrame, contract: Contract) -> tuple[pl.Series, tuple[str, ...]]:
    """Labels as class indices with the classes in words, or as numbers.

    The classes are those of the fitted rows: what they lack cannot be learned.
    """
    values = spine[_LABEL]
    if contract.task is Task.REGRESSION:
        if not values.dtype.is_numeric():
            raise Invalid(f"label {contract.label.column!r} of a regression should hold numbers, got {values.dtype}")
        return values.cast(pl.Float64), ()
    if values.dtype.is_float():
        raise Invalid(
            f"label {contract.label.column!r} of a classification should hold text, integers or true and false, "
            f"got {values.dtype}"
        )
    fitted = values.filter(~spine[IS_HELD_OUT]).unique().sort().to_list()
    if values.dtype == pl.Boolean or set(fitted) <= {0, 1}:
        fitted = [False, True] if values.dtype == pl.Boolean else [0, 1]
    if values.filter(~spine[IS_HELD_OUT]).n_unique() < 2:
        raise Invalid(f"label {contract.label.column!r} has one class only among the rows to fit on: {values[0]!r}")
    index = {value: float(number) for number, value in enumerate(fitted)}
    labels = pl.Series([index.get(value) for value in values.to_list()], dtype=pl.Float64)
    return labels, tuple(_class_name(value) for value in fitted)


def _class_name(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _matured(contract: Contract, as_of: datetime) -> str:
    if contract.ask.at is None:
        return ""
    return f" asked before {policy.matured_before(as_of, contract.label).isoformat()}"


def _words(holdout: timedelta | float) -> str:
    return f"{holdout.total_seconds() / 86400:g} days" if isinstance(holdout, timedelta) else f"{holdout:.0%}"
