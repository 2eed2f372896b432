"""Fills the inputs that the caller leaves out: features as known at the asked time, and transforms. For children.

By the same definitions as the endpoint and as training. A column that the input brings stands as a whole.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import polars as pl

from relevo.contract.model import Source
from relevo.errors import Invalid
from relevo.features.column_values import with_transforms
from relevo.features.model import Aggregation, Feature, FeatureView
from relevo.features.point_in_time import KnownRows
from relevo.registry.model import Manifest
from relevo.runtimes.model import Signature
from relevo.runtimes.requests import Layout
from relevo.scoring.validation import TYPES, Refusals


def wanted_views(manifest: Manifest, sent: Collection[str]) -> tuple[FeatureView, ...]:
    """The views with a feature that the input does not bring."""
    wanted = {column.view for column in manifest.signature.inputs if column.view and column.name not in sent}
    return tuple(view for view in manifest.views if view.name in wanted)


class Filler:
    """Fills typed rows of one version. Not thread-safe.

    Args:
        manifest: Of the version.
        sent: The columns that the input brings.
        sources: How the sources of the wanted views are declared.
        folder: Holds ``NAME.arrow`` for each of them.

    Raises:
        Invalid: A source does not fit its views.
    """

    def __init__(self, manifest: Manifest, sent: Collection[str], sources: Sequence[Source], folder: Path) -> None:
        self._manifest = manifest
        self._signature = manifest.signature
        self._views = wanted_views(manifest, sent)
        self._absent = [column.name for column in self._signature.inputs if column.view and column.name not in sent]
        self._required = tuple(view for view in self._views if view.required)
        self._keys = list(dict.fromkeys(name for view in self._views for name in view.entity.key))
        self._known: KnownRows | None = None
        if self._views:
            at = _require_at(self._signature)
            types = _types(self._signature, [*self._keys, at])
            tables = {source.name: pl.scan_ipc(folder / f"{source.name}.arrow") for source in sources}
            views = (*self._views, *(_presence(view) for view in self._required))
            self._known = KnownRows(views, tables, sources=sources, types=types, at=at)

    def fill(self, rows: pl.DataFrame, refusals: Refusals) -> tuple[pl.DataFrame, Refusals]:
        """All inputs of the model, in its order and types; and the rows that a required view knows nothing of."""
        given = rows
        if self._known is not None:
            at = _require_at(self._signature)
            found = self._known.attach(rows.select(list(dict.fromkeys([*self._keys, at]))))
            given = rows.with_columns(found.select(self._absent).get_columns())
            for view in self._required:
                refusals = refusals.then(self._missing(view, found), view.entity.key[0])
        inputs = {column.name: TYPES[column.type] for column in self._signature.inputs}
        given = given.with_columns(pl.col(name).cast(inputs[name]) for name in self._absent)
        seen = [name for name in (*inputs, self._signature.at) if name in given.columns]
        computed = with_transforms(
            given.select(list(dict.fromkeys(seen))), self._manifest.transforms, self._signature.at
        )
        return computed.select(pl.col(name).cast(kind) for name, kind in inputs.items()), refusals

    def _missing(self, view: FeatureView, found: pl.DataFrame) -> pl.Series:
        key = list(view.entity.key)
        null = pl.coalesce(pl.when(pl.col(name).is_null()).then(pl.lit(name)) for name in key)
        no_key = pl.format(f"view {view.name} needs '{{}}', got null", null)
        entity = [pl.format(f"{name} {{}}", pl.col(name).cast(pl.String)) for name in key]
        asked = pl.col(_require_at(self._signature)).dt.to_string("iso")
        unknown = pl.format(
            f"view {view.name} knows no {view.entity.name} with {{}} at {{}}",
            pl.concat_str(entity, separator=", "),
            asked,
        )
        is_unknown = pl.col(_presence_name(view)).is_null()
        return found.select(pl.when(is_unknown).then(pl.coalesce(no_key, unknown)).alias("missing")).to_series()


def _presence(view: FeatureView) -> FeatureView:
    """A view that is null exactly for the rows of which ``view`` knows nothing."""
    known = Feature(_presence_name(view), Aggregation.SINCE_LATEST, None, None)
    return FeatureView(f"known_{view.name}", entity=view.entity, source=view.source, features=(known,))


def _presence_name(view: FeatureView) -> str:
    return f"relevo_known_{view.name}"


def _require_at(signature: Signature) -> str:
    if signature.at is None:
        raise Invalid("The version looks features up and has no asked time.", field="ask.at")
    return signature.at


def _types(signature: Signature, names: Sequence[str]) -> dict[str, pl.DataType]:
    columns = Layout.of(signature).columns
    return {name: TYPES[columns[name].type] for name in names}
