"""The child process that recomputes logged feature values: ``python -m relevo.features.parity_child``.

It runs the snapshot of the code that a version was trained with. Frames lie in Parquet files; calls carry their paths.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from relevo.contract.model import Source
from relevo.datasets.checks import without_quarantined
from relevo.datasets.loading import read_source
from relevo.errors import Conflict
from relevo.features.model import FeatureView, view_id
from relevo.features.online import OnlineStore, Progress
from relevo.features.parity import AT, CURRENT, KNOWN, ONLINE, ROW, THROUGH, Comparison, FeatureParity, explain
from relevo.features.point_in_time import attach
from relevo.features.rows import content_of, read_rows
from relevo.platform.child import progress, serve
from relevo.platform.encoding import parse, to_json

JSON = dict[str, Any]
#: Rows that the online store is asked about at once.
BATCH_ROWS = 500


@dataclass(frozen=True, slots=True)
class Declared:
    """What a version's features are made of."""

    model: str
    views: tuple[FeatureView, ...]
    sources: tuple[Source, ...]
    package: Path

    @classmethod
    def of(cls, model: str, views: Sequence[JSON], sources: Sequence[JSON], package: str) -> Declared:
        """From the arguments of a call."""
        return cls(
            model,
            tuple(parse(FeatureView, view) for view in views),
            tuple(parse(Source, source) for source in sources),
            Path(package),
        )


class ParityChild:
    """What the child serves: ``values`` alone, or ``compare`` and then ``explain``."""

    def __init__(self) -> None:
        self._compared: tuple[Declared, str, Comparison] | None = None

    def values(
        self, rows: str, into: str, model: str, views: Sequence[JSON], sources: Sequence[JSON], package: str
    ) -> JSON:
        """Write the features of the logged ``rows`` as they were known to the Parquet file ``into``."""
        declared = Declared.of(model, views, sources, package)
        found = recomputed(pl.read_parquet(rows), declared)
        names = [feature.name for view in declared.views for feature in view.features]
        found.select(ROW, *(pl.col(KNOWN + name).alias(name) for name in names)).write_parquet(into)
        return {}

    def compare(
        self, rows: str, store: str, model: str, views: Sequence[JSON], sources: Sequence[JSON], package: str
    ) -> JSON:
        """Compare the logged ``rows`` with what the sources give.

        Gives ``features``, each a ``FeatureParity`` without causes, and ``origins``: of each view that differs, the
        digest of the code that fills it now.
        """
        declared = Declared.of(model, views, sources, package)
        comparison = Comparison(recomputed(pl.read_parquet(rows), declared), declared.views)
        self._compared = (declared, store, comparison)
        found = comparison.counts()
        differing = {one.view for one in found if one.different}
        with closing(OnlineStore(store)) as online:
            filled = {view.name: online.progress(view_id(model, view)) for view in declared.views}
        origins = {name: each.origin for name, each in filled.items() if each is not None and name in differing}
        return {"features": to_json(found), "origins": origins}

    def explain(self, other: Mapping[str, str]) -> JSON:
        """Why values differ: the ``features`` of ``compare`` with causes and examples.

        Args:
            other: By view, the Parquet file of its values by the code that fills it now, when that is other code.
        """
        if self._compared is None:
            raise Conflict("explain came before compare")
        declared, store, comparison = self._compared
        by_name = {view.name: view for view in declared.views}
        sources: dict[str, bool | None] = {}  # by view, whether its source is as it was
        explained = []
        with closing(OnlineStore(store)) as online:
            for one in comparison.counts():
                if one.different:
                    progress(f"asking the online store about {one.feature}")
                    view = by_name[one.view]
                    if view.name not in sources:
                        sources[view.name] = _is_source_as_it_was(view, online, declared)
                    one = _explained(
                        one, view, comparison, online, model=declared.model, other=other.get(view.name),
                        source_is_same=sources[view.name],
                    )  # fmt: skip
                explained.append(one)
        return {"features": to_json(explained)}


def recomputed(logged: pl.DataFrame, declared: Declared) -> pl.DataFrame:
    """The logged rows with the features as known when the store answered, and as they were had it been current."""
    latest = logged[AT].max()
    if latest is None or not declared.views:
        return logged
    tables: dict[str, pl.LazyFrame] = {}
    used = {view.source for view in declared.views}
    for source in declared.sources:
        if source.name in used:
            progress(f"loading {source.name}")
            tables[source.name] = _rows_of(source, declared, latest).lazy()  # type: ignore[arg-type]
    progress(f"recomputing {logged.height:,} rows")
    keys = dict.fromkeys(key for view in declared.views for key in view.entity.key)
    spine = logged.lazy().select(*keys, AT, THROUGH)
    names = [feature.name for view in declared.views for feature in view.features]

    def features(as_of: str | None, prefix: str) -> pl.DataFrame:
        found = attach(spine, declared.views, tables, sources=declared.sources, at=AT, as_of=as_of)
        return found.select(pl.col(name).alias(prefix + name) for name in names).collect()

    current = features(None, CURRENT)
    is_behind = (logged[THROUGH].is_null() | (logged[THROUGH] < logged[AT])).any()
    known = features(THROUGH, KNOWN) if is_behind else current.rename({CURRENT + n: KNOWN + n for n in names})
    return pl.concat([logged, known, current], how="horizontal")


def _explained(
    one: FeatureParity,
    view: FeatureView,
    comparison: Comparison,
    online: OnlineStore,
    *,
    model: str,
    other: str | None,
    source_is_same: bool | None,
) -> FeatureParity:
    differing = comparison.differing(one.feature)
    answers = list(_answers(online, model, view, differing, one.feature))
    kind = differing.schema[KNOWN + one.feature]
    differing = differing.with_columns(pl.Series(ONLINE + one.feature, answers, dtype=kind, strict=False))
    filled: Progress | None = online.progress(view_id(model, view))
    by_other = None
    if other is not None:
        values = pl.read_parquet(other, columns=[ROW, one.feature])
        by_other = differing.select(ROW).join(values, on=ROW, how="left", maintain_order="left")[one.feature]
    causes, examples = explain(
        differing,
        view,
        one.feature,
        other_code=by_other,
        filled_through=None if filled is None else filled.through,
        source_is_same=source_is_same,
    )
    return replace(one, causes=causes, examples=examples)


def _is_source_as_it_was(view: FeatureView, online: OnlineStore, declared: Declared) -> bool | None:
    """Whether the source gives the rows that the view was filled with; None when nobody knows."""
    filled = online.progress(view_id(declared.model, view))
    if filled is None or filled.content is None:
        return None
    source = next(source for source in declared.sources if source.name == view.source)
    content = content_of(read_rows(view, source, _rows_of(source, declared, filled.through).lazy()).collect())
    if content is None or content.partition(":")[0] != filled.content.partition(":")[0]:
        return None
    return content == filled.content


def _rows_of(source: Source, declared: Declared, until: datetime) -> pl.DataFrame:
    """The rows that the online store is filled with."""
    package = declared.package
    return without_quarantined(source, package, read_source(source, package, until=until))


def _answers(online: OnlineStore, model: str, view: FeatureView, rows: pl.DataFrame, feature: str) -> Iterator[object]:
    """What the online store says today about the asked times of the rows."""
    for batch in rows.select(*view.entity.key, AT).iter_slices(BATCH_ROWS):
        keys, at = batch.select(view.entity.key).to_dicts(), batch[AT].to_list()
        for found in online.lookup(model, [view], keys, at):
            yield found[feature]


if __name__ == "__main__":
    child = ParityChild()
    serve({"values": child.values, "compare": child.compare, "explain": child.explain})
