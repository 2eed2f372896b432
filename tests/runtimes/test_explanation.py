"""What each input adds to an answer: every runtime's contributions sum to its prediction."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from scipy.special import expit, softmax
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from relevo.errors import Unavailable
from relevo.registry.bundles import write_bundle
from relevo.runtimes import isolated
from relevo.runtimes.compilation import compile_model
from relevo.runtimes.explanation import Explanation
from relevo.runtimes.frames import rows_of_frame
from relevo.runtimes.loading import LoadedRuntime, load_runtime
from relevo.runtimes.model import Link, Signature

LINKS = {
    Link.IDENTITY: lambda score: score,
    Link.LOGISTIC: expit,
    Link.SOFTMAX: lambda score: softmax(score, axis=1),
    Link.EXPONENTIAL: np.exp,
}


def encoded(final: Any) -> Any:
    text = ("text", OneHotEncoder(handle_unknown="ignore"), ["carrier", "origin"])
    return make_pipeline(ColumnTransformer([text, ("numbers", StandardScaler(), ["distance", "hour"])]), final)


def codes() -> FunctionTransformer:
    """Pickled by value, as a team's own function would be."""

    def as_codes(frame: pd.DataFrame) -> Any:
        columns = [frame[name] for name in frame.columns]
        return np.column_stack([c.cat.codes if hasattr(c, "cat") else c.fillna(-1.0) for c in columns])

    return FunctionTransformer(as_codes)


def trees(kind: Any, **more: Any) -> Any:
    return kind(n_estimators=20, min_child_samples=5, verbose=-1, n_jobs=1, **more)


def boosted(kind: Any, **more: Any) -> Any:
    return kind(n_estimators=20, n_jobs=1, enable_categorical=True, tree_method="hist", **more)


MODELS: dict[str, tuple[int, Any, str, Link]] = {
    "linear, a number": (0, lambda: encoded(LinearRegression()), "linear", Link.IDENTITY),
    "linear, two classes": (2, lambda: encoded(LogisticRegression(max_iter=500)), "linear", Link.LOGISTIC),
    "linear, four classes": (4, lambda: encoded(LogisticRegression(max_iter=500)), "linear", Link.SOFTMAX),
    "trees, a number": (0, lambda: trees(lightgbm.LGBMRegressor), "lightgbm", Link.IDENTITY),
    "trees, counts": (0, lambda: trees(lightgbm.LGBMRegressor, objective="poisson"), "lightgbm", Link.EXPONENTIAL),
    "trees, two classes": (2, lambda: trees(lightgbm.LGBMClassifier), "lightgbm", Link.LOGISTIC),
    "trees, four classes": (4, lambda: trees(lightgbm.LGBMClassifier), "lightgbm", Link.SOFTMAX),
    "XGBoost, a number": (0, lambda: boosted(xgboost.XGBRegressor), "xgboost", Link.IDENTITY),
    "XGBoost, counts": (
        0,
        lambda: boosted(xgboost.XGBRegressor, objective="count:poisson"),
        "xgboost",
        Link.EXPONENTIAL,
    ),
    "XGBoost, two classes": (2, lambda: boosted(xgboost.XGBClassifier), "xgboost", Link.LOGISTIC),
    "XGBoost, four classes": (4, lambda: boosted(xgboost.XGBClassifier), "xgboost", Link.SOFTMAX),
    "any other, a number": (
        0,
        lambda: make_pipeline(codes(), GradientBoostingRegressor(n_estimators=10)),
        "isolated",
        Link.IDENTITY,
    ),
    "any other, three classes": (
        3,
        lambda: make_pipeline(codes(), StandardScaler(), LogisticRegression(max_iter=500)),
        "isolated",
        Link.IDENTITY,
    ),
}


class Sealed:
    """A fitted model in a bundle, loaded."""

    def __init__(self, training: Any, folder: Path, classes: int, make: Any) -> None:
        nulls = classes != 4
        self.signature: Signature
        self.signature, self.frame, labels = training(classes, nulls=False)
        if not classes and nulls:
            labels = labels - labels.min()
        self.model = make().fit(self.frame, labels)
        compiled = compile_model(self.model, self.signature, self.frame.head(100))
        manifest = write_bundle(
            folder,
            model="m",
            version=1,
            run_id="r",
            runtime=compiled.runtime,
            signature=self.signature,
            files=compiled.files,
        )
        self.name = compiled.runtime
        self.runtime: LoadedRuntime = load_runtime(folder, manifest)
        self.rows = rows_of_frame(self.frame.head(7), self.signature)


@pytest.fixture
def sealed(request: pytest.FixtureRequest, training: Any, tmp_path: Path) -> Iterator[Sealed]:
    classes, make, *_ = MODELS[request.param]
    made = Sealed(training, tmp_path / "bundle", classes, make)
    yield made
    made.runtime.close()


def score(found: Explanation) -> Any:
    return np.asarray(found.base) + np.asarray(found.contributions).sum(axis=1)


@pytest.mark.parametrize(("sealed", "name"), [(name, name) for name in MODELS], indirect=["sealed"])
def test_contributions_sum_to_the_prediction(sealed: Sealed, name: str) -> None:
    _, _, runtime, link = MODELS[name]
    assert sealed.name == runtime
    found = sealed.runtime.explain(sealed.rows)
    assert found.link is link
    assert np.asarray(found.contributions).shape[:2] == (len(sealed.rows), len(sealed.signature.inputs))
    predictions = np.asarray(sealed.runtime.predict(sealed.rows))
    tolerance = 1e-5 if runtime == "xgboost" else 1e-9  # XGBoost adds in float32
    assert LINKS[link](score(found)) == pytest.approx(predictions, abs=tolerance, rel=tolerance)
    assert np.abs(found.contributions).max() > 0


@pytest.mark.parametrize("sealed", ["trees, two classes"], indirect=True)
def test_trees_give_what_lightgbm_itself_gives(sealed: Sealed) -> None:
    expected = sealed.model.predict(sealed.frame.head(7), pred_contrib=True)
    found = sealed.runtime.explain(sealed.rows)
    assert np.asarray(found.contributions) == pytest.approx(expected[:, :-1], abs=1e-12)
    assert np.asarray(found.base) == pytest.approx(expected[:, -1], abs=1e-12)


@pytest.mark.parametrize("sealed", ["linear, two classes"], indirect=True)
def test_an_input_that_the_model_leaves_out_adds_nothing(sealed: Sealed) -> None:
    places = [place for place, column in enumerate(sealed.signature.inputs) if column.name == "is_weekend"]
    assert np.asarray(sealed.runtime.explain(sealed.rows).contributions)[:, places].tolist() == [[0.0]] * 7


@pytest.mark.parametrize("sealed", ["any other, a number"], indirect=True)
def test_explaining_holds_up_no_prediction_and_has_a_limit(sealed: Sealed) -> None:
    sealed.runtime.explain(sealed.rows[:1])  # the child is there
    explainer = sealed.runtime._explainer
    assert isinstance(explainer, isolated.IsolatedRuntime)
    explainer.limits = isolated.ProcessLimits(call_seconds=0.001)
    with pytest.raises(Unavailable, match=r"longer than 0\.001 s"):
        sealed.runtime.explain(sealed.rows * 10)
    assert len(sealed.runtime.predict(sealed.rows)) == 7
    explainer.limits = isolated.ProcessLimits(call_seconds=10.0)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:  # the child that was ended is started again
        try:
            assert len(sealed.runtime.explain(sealed.rows).base) == 7
            return
        except Unavailable:
            time.sleep(0.2)
    raise AssertionError("it did not explain again")
