"""The three models that everyone serves: fitted here once, and saved for the environments of the peers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import lightgbm
import numpy as np
import polars as pl
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from workloads import CLASSES, Model, Workload

from relevo.contract.model import Task
from relevo.runtimes import original
from relevo.runtimes.frames import as_frame, categories_of, frame_of_columns
from relevo.runtimes.model import Column, ColumnType, Signature

SEED = 7
FITTED_ROWS, HELD_ROWS, ASKED_ROWS = 20_000, 500, 1_000
NUMBERS = ("amount", "balance", "age_days", "visits", "distance_km", "duration_s", "discount", "score")
#: The text columns, and how many values each has.
TEXTS = {"country": 40, "channel": 6, "product": 120, "device": 12}

Rows = list[list[Any]]


@dataclass(frozen=True)
class Served:
    """A model as it is served, the rows that are asked about, and its own answers to them.

    ``folder`` has what a peer loads: ``model.joblib`` or, for LightGBM, ``booster.txt``; and ``columns.json``.
    """

    name: str
    title: str
    workload: Workload
    folder: Path

    @property
    def columns(self) -> list[str]:
        return list(self.workload.rows[0])

    @property
    def texts(self) -> list[str]:
        """The columns that hold text."""
        return [column.name for column in self.workload.model.signature.inputs if column.type is ColumnType.TEXT]


def served_models(folder: Path, names: list[str]) -> list[Served]:
    """The models of these names, fitted with one seed on generated rows."""
    table = _table(FITTED_ROWS + HELD_ROWS + ASKED_ROWS)
    return [_served(name, table, folder / name) for name in names]


def _served(name: str, table: pl.DataFrame, folder: Path) -> Served:
    title, runtime = MODELS[name]
    coded = name == "boosted"
    if coded:
        # Categories as whole numbers: so every peer serves the very same booster, without code of its own for text.
        table = table.with_columns(pl.col(text).str.slice(1).cast(pl.Int64) for text in TEXTS)
    kinds = {pl.Float64: ColumnType.FLOAT, pl.Int64: ColumnType.INTEGER, pl.String: ColumnType.TEXT}
    inputs = tuple(Column(column, kinds[type(table.schema[column])], nullable=False) for column in (*NUMBERS, *TEXTS))
    signature = Signature(Task.CLASSIFICATION, inputs, classes=CLASSES)
    fitted_rows = table.head(FITTED_ROWS)
    columns = [column.name for column in inputs]
    values = {column: fitted_rows[column] for column in columns}
    categories = categories_of(values, signature)
    frame_of_fit, label = (
        frame_of_columns(values, signature, categories),
        fitted_rows["label"].cast(pl.Int64).to_numpy(),
    )
    fitted = _estimator(name).fit(frame_of_fit, label, **({"categorical_feature": list(TEXTS)} if coded else {}))

    def frame(rows: pl.DataFrame) -> Any:
        return as_frame(rows.select(columns).rows(), signature, categories)

    held, asked = table.slice(FITTED_ROWS, HELD_ROWS), table.tail(ASKED_ROWS)
    model = Model(name, [], signature, fitted, categories, frame(held), runtime)
    answers = original.predict(fitted, frame(asked), signature).tolist()
    _save(fitted, columns, folder)
    return Served(name, title, Workload(name, model, asked.select(columns).to_dicts(), answers), folder)


def _table(n_rows: int) -> pl.DataFrame:
    """Generated rows: skewed and even numbers, text with common and rare values, and a label that depends on most."""
    random = np.random.default_rng(SEED)
    numbers = {name: random.lognormal(mean=place / 2, sigma=1.0, size=n_rows) for place, name in enumerate(NUMBERS)}
    numbers["discount"] = random.uniform(-1.0, 1.0, n_rows)
    numbers["score"] = random.normal(0.0, 1.0, n_rows)
    codes = {name: (count * random.beta(1.0, 3.0, n_rows)).astype(int) for name, count in TEXTS.items()}
    signal = np.log(numbers["amount"]) - 0.5 * np.log(numbers["balance"]) + numbers["discount"] * numbers["score"]
    signal += sum(random.normal(0.0, 0.5, count)[codes[name]] for name, count in TEXTS.items())
    label = random.uniform(size=n_rows) < 1 / (1 + np.exp(-signal))
    texts = {name: [f"{name[0]}{code}" for code in values] for name, values in codes.items()}
    return pl.DataFrame({**{name: values.round(6) for name, values in numbers.items()}, **texts, "label": label})


def _estimator(name: str) -> Any:
    if name == "boosted":
        return lightgbm.LGBMClassifier(n_estimators=200, random_state=SEED, n_jobs=1, verbose=-1)
    numbers: Any = StandardScaler()
    if name == "uncompiled":
        numbers = make_pipeline(FunctionTransformer(np.arcsinh, feature_names_out="one-to-one"), StandardScaler())
    prepare = ColumnTransformer(
        [("numbers", numbers, list(NUMBERS)), ("texts", OneHotEncoder(handle_unknown="ignore"), list(TEXTS))]
    )
    return make_pipeline(prepare, LogisticRegression(max_iter=1_000))


def _save(fitted: Any, columns: list[str], folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "columns.json").write_text(json.dumps(columns))
    if hasattr(fitted, "booster_"):
        fitted.booster_.save_model(folder / "booster.txt")
    else:
        joblib.dump(fitted, folder / "model.joblib")


#: Of each model its title, and the runtime that Relevo must choose for it.
MODELS = {
    "linear": ("scikit-learn: scaled numbers, one-hot text, logistic regression", "linear"),
    "boosted": ("LightGBM, 200 trees", "lightgbm"),
    "uncompiled": ("scikit-learn with a function of numpy in the pipeline", "isolated"),
}
