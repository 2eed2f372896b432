"""Models of every kind that teams bring: sealed, loaded, probed, and asked over HTTP beside the model itself."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import catboost  # type: ignore[import-untyped]
import lightgbm
import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm  # type: ignore[import-untyped]
import statsmodels.formula.api as smf  # type: ignore[import-untyped]
import xgboost
from gateway_home import NOW, Home
from sklearn.compose import make_column_transformer
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

from relevo.contract.model import Task
from relevo.runtimes import original
from relevo.runtimes.compilation import compile_model
from relevo.runtimes.frames import as_frame, categories_of
from relevo.runtimes.model import Column, ColumnType, Signature
from relevo.runtimes.model_folder import FOLDER, load_model
from relevo.serving.model import Arm, EndpointSettings

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]

NAMES = ("carrier", "distance", "hour")
TYPES = (ColumnType.TEXT, ColumnType.FLOAT, ColumnType.INTEGER)
CARRIERS = ["AA", "DL", "UA"]

TEAM_CODE = '''
import numpy as np


class Tariff:
    """A price list: no library, no fit, nothing but a predict."""

    surcharge = {"UA": 10.0, "DL": 5.0}

    def predict(self, frame):
        carriers = frame["carrier"].astype(object).map(lambda name: self.surcharge.get(name, 1.0))
        return np.asarray(frame["distance"].fillna(0.0) * 0.1 + carriers.astype(float))
'''


@dataclass(frozen=True)
class Kind:
    """A way to fit a model, its task, and the runtime that it is to be served with."""

    fit: Callable[[pd.DataFrame, np.ndarray, Path], Any]
    classes: tuple[str, ...] = ()
    runtime: str = "isolated"
    nullable: bool = True


def _cat(model: Any) -> Callable[[pd.DataFrame, np.ndarray, Path], Any]:
    """CatBoost takes text as it is, and refuses nulls in it."""

    def as_text(frame: Any) -> Any:
        return frame.assign(carrier=frame["carrier"].astype(object).fillna("none").astype(str))

    pipeline = make_pipeline(FunctionTransformer(as_text), model)
    return lambda frame, label, folder: pipeline.fit(frame, label)


def _logit(frame: pd.DataFrame, label: np.ndarray, folder: Path) -> Any:
    data = frame.assign(carrier=frame["carrier"].astype(str), label=label, distance=frame["distance"] / 1000)
    return smf.logit("label ~ distance + hour + C(carrier)", data).fit(disp=False)


def _ols(frame: pd.DataFrame, label: np.ndarray, folder: Path) -> Any:
    return smf.ols("label ~ distance * hour", frame.assign(label=label)).fit()


def _poisson(frame: pd.DataFrame, label: np.ndarray, folder: Path) -> Any:
    data = frame.assign(label=np.round(label), distance=frame["distance"])
    return smf.glm("label ~ np.log1p(distance)", data, family=sm.families.Poisson()).fit()


def _pyfunc(frame: pd.DataFrame, label: np.ndarray, folder: Path) -> Any:
    """What ``mlflow.pyfunc.log_model`` is for. Imported here, since MLflow's own imports warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.pyfunc

        class Halved(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
            def predict(self, context, model_input, params=None):  # MLflow takes hints for a schema
                return (model_input["distance"].fillna(0.0) / 2).to_numpy()

        mlflow.pyfunc.save_model(folder / FOLDER, python_model=Halved(), pip_requirements=["mlflow"])
        return load_model(folder / FOLDER)


def _tariff(frame: pd.DataFrame, label: np.ndarray, folder: Path) -> Any:
    package = folder / "package" / "tariffs"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(TEAM_CODE)
    sys.path.insert(0, str(package.parent))
    from tariffs import Tariff  # type: ignore[import-not-found]

    return Tariff()


def _lightgbm(frame: pd.DataFrame, label: np.ndarray, folder: Path) -> Any:
    params = {"objective": "binary", "verbose": -1, "num_threads": 1}
    return lightgbm.train(params, lightgbm.Dataset(frame, label), num_boost_round=10)


def _xgboost(frame: pd.DataFrame, label: np.ndarray, folder: Path) -> Any:
    data = xgboost.DMatrix(frame, label, enable_categorical=True)
    return xgboost.train({"objective": "binary:logistic", "nthread": 1}, data, num_boost_round=10)


def _encoded(model: Any) -> Any:
    encode = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["carrier"]), remainder="passthrough")
    return make_pipeline(encode, model)


YES_NO = ("no", "yes")
QUIET = {"verbose": 0, "allow_writing_files": False}
KINDS: dict[str, Kind] = {
    "catboost-classifier": Kind(
        _cat(catboost.CatBoostClassifier(iterations=10, cat_features=["carrier"], thread_count=1, **QUIET)), YES_NO
    ),
    "catboost-regressor": Kind(
        _cat(catboost.CatBoostRegressor(iterations=10, cat_features=["carrier"], thread_count=1, **QUIET))
    ),
    "statsmodels-logit": Kind(_logit, YES_NO, "linear", nullable=False),
    "statsmodels-ols": Kind(_ols, nullable=False),
    "statsmodels-poisson": Kind(_poisson, nullable=False),
    "pyfunc": Kind(_pyfunc),
    "plain-class": Kind(_tariff),
    "lightgbm-booster": Kind(_lightgbm, YES_NO, "lightgbm"),
    "lightgbm-estimator": Kind(
        lambda frame, label, _: lightgbm.LGBMRegressor(n_estimators=10, verbose=-1, n_jobs=1).fit(frame, label),
        runtime="lightgbm",
    ),
    "xgboost-booster": Kind(_xgboost, YES_NO, "xgboost"),
    "xgboost-estimator": Kind(
        lambda frame, label, _: xgboost.XGBRegressor(n_estimators=10, n_jobs=1, enable_categorical=True).fit(
            frame, label
        ),
        runtime="xgboost",
    ),
    "logistic-pipeline": Kind(
        lambda frame, label, _: _encoded(LogisticRegression(max_iter=5000)).fit(frame, label),
        YES_NO,
        "linear",
        nullable=False,
    ),
    "ridge": Kind(lambda frame, label, _: _encoded(Ridge()).fit(frame, label), runtime="linear", nullable=False),
    "forest": Kind(
        lambda frame, label, _: _encoded(GradientBoostingRegressor(n_estimators=10, random_state=1)).fit(frame, label),
        runtime="onnx-float64",
        nullable=False,
    ),
}


@dataclass(frozen=True)
class Sealed:
    """What a model itself answers, and what its version was sealed with."""

    runtime: str
    rows: list[list[Any]]
    answers: list[float]


def _seal(home: Home, name: str, kind: Kind, folder: Path) -> Sealed:
    draw = np.random.default_rng(11)
    values: list[list[Any]] = [
        [str(draw.choice(CARRIERS)), float(draw.gamma(3, 300)), int(draw.integers(0, 24))] for _ in range(400)
    ]
    columns = tuple(Column(column, type_, kind.nullable) for column, type_ in zip(NAMES, TYPES, strict=True))
    task = Task.CLASSIFICATION if kind.classes else Task.REGRESSION
    signature = Signature(task, columns, classes=kind.classes)
    categories = categories_of({column: [row[i] for row in values] for i, column in enumerate(NAMES)}, signature)
    frame = as_frame(values, signature, categories)
    score = frame["distance"].to_numpy() / 900 + (frame["carrier"] == "UA").to_numpy() + draw.normal(0, 0.5, 400)
    label = (score > 1.4).astype(int) if kind.classes else score
    model = kind.fit(frame, label, folder)
    own = folder / FOLDER
    files = {f"{FOLDER}/{path.relative_to(own)}": path.read_bytes() for path in own.rglob("*") if path.is_file()}
    package = folder / "package"
    compiled = compile_model(
        model,
        signature,
        frame.head(100),
        package=package if package.exists() else None,
        original_files=files or None,
    )
    bundle = home.keep(1, compiled.runtime, signature, compiled.files, endpoint=name)
    with home.state.transaction() as tx:
        home.serving.ensure_endpoint(tx, name, EndpointSettings(log="buffered"))
        home.serving.place(tx, name, 1, bundle)
        home.serving.set_route(tx, name, [Arm(1, 100)], reason="test", set_by="ada", effective_event_at=NOW)
    asked = values[:30]
    if kind.nullable:
        asked = [*asked, ["unseen", 120.5, 3], [None, 800.0, 4], ["UA", None, 5]]
    answers = original.predict(model, as_frame(asked, signature, categories), signature).tolist()
    return Sealed(compiled.runtime, asked, answers)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, dict[str, Sealed]]]:
    """A gateway with every kind of model in production."""
    home = Home(tmp_path_factory.mktemp("originals") / "home")
    try:
        found = {name: _seal(home, name, kind, tmp_path_factory.mktemp(name)) for name, kind in KINDS.items()}
        home.start()
        for name in KINDS:
            home.serving.await_loaded(name, 1, 120)
        yield home, found
    finally:
        home.stop()


@pytest.mark.parametrize("name", KINDS)
def test_a_model_is_served_as_it_answers_itself(sealed: tuple[Home, dict[str, Sealed]], name: str) -> None:
    home, versions = sealed
    version = versions[name]
    assert version.runtime == KINDS[name].runtime
    with home.client() as client:
        body = {"dataframe_split": {"columns": NAMES, "data": version.rows}}
        answer = client.post(f"/endpoints/{name}/invocations", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["predictions"] == pytest.approx(version.answers, rel=1e-6, abs=1e-9)
        for row, expected in zip(version.rows[-3:], version.answers[-3:], strict=True):
            single = {"dataframe_split": {"columns": NAMES, "data": [row]}}
            alone = client.post(f"/endpoints/{name}/invocations", json=single).json()
            assert alone["predictions"] == pytest.approx([expected], rel=1e-6, abs=1e-9)
