"""Models of the flights, with features sent and looked up: rows to ask about, and the models' own answers."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import flights
import msgspec
import polars as pl

from relevo.features.model import FeatureView
from relevo.features.point_in_time import attach
from relevo.runtimes import original
from relevo.runtimes.frames import as_frame, categories_of, frame_of_columns
from relevo.runtimes.model import Signature
from relevo.runtimes.signature import derive_signature
from relevo.training import TrainingSet

CLASSES = ("false", "true")
FITTED_ROWS = 60_000

Row = dict[str, Any]


@dataclass(frozen=True)
class Model:
    """A fitted model and its signature; with ``views``, the gateway looks their features up.

    ``runtime`` is the one that it must be sealed with.
    """

    name: str
    views: list[FeatureView]
    signature: Signature
    fitted: Any
    categories: dict[str, list[str]]
    holdout: Any
    runtime: str = "lightgbm"


@dataclass(frozen=True)
class Workload:
    """What the callers send: rows of some columns, in turn, and the model's own answers to them."""

    name: str
    model: Model
    rows: list[Row]
    answers: list[float]

    def blocks(self, n_rows: int = 1) -> list[list[int]]:
        """The rows of each request, by their places: single rows, or overlapping runs of them."""
        places = range(0, len(self.rows), max(1, n_rows // 10))
        return [[(first + place) % len(self.rows) for place in range(n_rows)] for first in places]

    def bodies(self, n_rows: int = 1) -> list[bytes]:
        return [self.body([list(self.rows[place].values()) for place in block]) for block in self.blocks(n_rows)]

    def body(self, rows: list[list[Any]]) -> bytes:
        return msgspec.json.encode({"dataframe_split": {"columns": list(self.rows[0]), "data": rows}})

    def endpoint(self, log: str) -> str:
        return f"{self.model.name}-{log}"


def workloads() -> list[Workload]:
    contract, views = flights.contract(), flights.views()
    features = [feature.name for view in views for feature in view.features]
    own, keys, at = list(contract.ask.inputs), ["tailnum"], str(contract.ask.at)
    rows = flights.tables(flights.THROUGH)
    spine = flights.scheduled().select("scheduled_at", "tailnum", *own, is_late=pl.col("arr_delay") > 15)
    spine = spine.filter(pl.col("scheduled_at") <= flights.THROUGH)
    tables = {name: table.lazy() for name, table in rows.items()}
    frame = attach(spine.lazy(), views, tables, sources=contract.sources, at=at).collect()
    fitted = frame.drop_nulls("is_late").sample(FITTED_ROWS, seed=7)
    asked = frame.filter(pl.col("scheduled_at").dt.offset_by("20h") > flights.THROUGH).sample(
        fraction=1, shuffle=True, seed=7
    )
    plain = _fit("own", [], fitted)
    full = _fit("features", views, fitted)
    plain_answers, full_answers = _answers(plain, asked), _answers(full, asked)
    return [
        Workload("6 columns sent", plain, asked.select(own).to_dicts(), plain_answers),
        Workload("20 columns sent", full, asked.select(*own, *features).to_dicts(), full_answers),
        Workload("6 sent, 14 looked up", full, asked.select(*own, *keys, at).to_dicts(), full_answers),
    ]


def _fit(name: str, views: list[FeatureView], rows: pl.DataFrame) -> Model:
    """The example's own training function on these rows."""
    contract = flights.contract()
    dtypes = {column: str(dtype) for column, dtype in rows.schema.items()}
    signature = derive_signature(contract, views, dtypes, CLASSES)
    columns = {column.name: rows[column.name] for column in signature.inputs}
    categories = categories_of(columns, signature)
    inputs = frame_of_columns(columns, signature, categories)
    params = dict(contract.training.params)
    label = rows["is_late"].cast(pl.Int64).to_pandas()
    train = importlib.import_module("flight_delay.train").train
    fitted = train(TrainingSet(inputs, label, None, params, CLASSES), params)
    return Model(name, views, signature, fitted, categories, inputs.head(500))


def _answers(model: Model, rows: pl.DataFrame) -> list[float]:
    """The original model's own answers, features joined offline."""
    inputs = rows.select(column.name for column in model.signature.inputs).rows()
    return original.predict(model.fitted, as_frame(inputs, model.signature, model.categories), model.signature).tolist()
