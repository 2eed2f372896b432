"""Models of scikit-learn and pipelines with boosters in ONNX Runtime: they answer as the original, or are not used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from relevo.errors import Corrupted, Invalid, Unavailable
from relevo.registry.bundles import write_bundle
from relevo.runtimes import onnx, original
from relevo.runtimes.compilation import compile_model, training_categories
from relevo.runtimes.compilers import COMPILERS
from relevo.runtimes.forests import forest_of
from relevo.runtimes.frames import as_frame, rows_of_frame
from relevo.runtimes.loading import open_runtime
from relevo.runtimes.model import CATEGORIES_FILE, Column, ColumnType, Signature

NUMBERS = ["distance", "departs_at_s", "is_weekend", "hour"]


def prepared(final: Any, *, is_sparse: bool = False, numbers: Any = None) -> Pipeline:
    """Encoded text, imputed and scaled numbers, a final model."""
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=is_sparse)
    numbers = numbers or make_pipeline(SimpleImputer(), StandardScaler())
    steps = [("text", encoder, ["carrier", "origin"]), ("numbers", numbers, NUMBERS)]
    prepare = ColumnTransformer(steps, sparse_threshold=1.0 if is_sparse else 0.0)
    return Pipeline([("prepare", prepare), ("model", final)])


def ordinal(final: Any) -> Pipeline:
    encoder = make_pipeline(
        SimpleImputer(strategy="most_frequent"), OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    )
    return make_pipeline(ColumnTransformer([("text", encoder, ["carrier", "origin"])], remainder="passthrough"), final)


GENTLE: dict[str, Any] = {"n_estimators": 10, "verbose": -1, "num_threads": 1, "min_child_samples": 5}
STEEP: dict[str, Any] = {"n_estimators": 10, "max_depth": 4, "n_jobs": 1}

#: Case: number of classes, whether text is among the inputs, the model.
CASES: dict[str, tuple[int, bool, Any]] = {
    "tree": (2, True, lambda: prepared(DecisionTreeClassifier(max_depth=4))),
    "tree regression": (0, False, lambda: DecisionTreeRegressor(max_depth=4)),
    "forest": (2, False, lambda: RandomForestClassifier(8, random_state=1)),
    "forest of classes": (4, True, lambda: prepared(RandomForestClassifier(8, random_state=1))),
    "forest regression": (0, False, lambda: RandomForestRegressor(8, random_state=1)),
    "extra trees, sparse": (2, True, lambda: prepared(ExtraTreesClassifier(8, random_state=1), is_sparse=True)),
    "ordinal forest": (2, True, lambda: ordinal(RandomForestClassifier(8, random_state=1))),
    "boosting": (2, True, lambda: prepared(GradientBoostingClassifier(n_estimators=8))),
    "boosting of classes": (4, True, lambda: prepared(GradientBoostingClassifier(n_estimators=8))),
    "boosting regression": (0, True, lambda: prepared(GradientBoostingRegressor(n_estimators=8))),
    "histogram boosting": (2, False, lambda: HistGradientBoostingClassifier(max_iter=8)),
    "histogram boosting of classes": (4, True, lambda: prepared(HistGradientBoostingClassifier(max_iter=8))),
    "histogram boosting regression": (0, False, lambda: HistGradientBoostingRegressor(max_iter=8)),
    "histogram boosting of counts": (0, False, lambda: HistGradientBoostingRegressor(max_iter=8, loss="poisson")),
    "lightgbm in a pipeline": (2, True, lambda: prepared(lightgbm.LGBMClassifier(**GENTLE), is_sparse=True)),
    "lightgbm of classes": (4, True, lambda: prepared(lightgbm.LGBMClassifier(**GENTLE))),
    "lightgbm regression": (0, True, lambda: prepared(lightgbm.LGBMRegressor(**GENTLE), numbers="passthrough")),
    "xgboost in a pipeline": (2, True, lambda: prepared(xgboost.XGBClassifier(**STEEP))),
    "xgboost, sparse": (4, True, lambda: prepared(xgboost.XGBClassifier(**STEEP), is_sparse=True)),
    "network": (2, True, lambda: prepared(MLPClassifier((8,), max_iter=20, random_state=1))),
    "bayes": (2, True, lambda: prepared(GaussianNB())),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore:X does not have valid feature")
@pytest.mark.parametrize("case", CASES)
def test_a_model_is_converted_in_float64_and_agrees(case: str, training: Any, numeric: Any) -> None:
    classes, has_text, make = CASES[case]
    signature, frame, labels = training(classes) if has_text else training(classes, columns=numeric)
    model = make().fit(frame, np.exp(labels / 3) if "counts" in case else labels)
    compiled = compile_model(model, signature, frame.iloc[-100:])
    assert compiled.runtime == "onnx-float64", compiled.agreement
    is_single = "xgboost" in case  # it answers in float32 itself
    assert compiled.agreement["tolerance"] == (1e-6 if is_single else 1e-9)
    assert compiled.agreement["largest_difference"] < (1e-6 if is_single else 1e-13)  # type: ignore[operator]
    runtime = open_runtime(compiled.runtime, compiled.files, signature)
    rows = rows_of_frame(frame, signature)
    expected = original.predict(model, as_frame(rows, signature, training_categories(frame)), signature)
    np.testing.assert_allclose(runtime.predict(rows), expected, rtol=2e-6 if is_single else 1e-12)
    assert runtime.predict([]) == []
    runtime.close()
    runtime.close()
    with pytest.raises(Unavailable, match="closed"):
        runtime.predict(rows)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore:X has feature names")
def test_what_the_original_refuses_is_refused(training: Any, numeric: Any) -> None:
    signature, frame, labels = training(2, columns=numeric, nulls=False)
    model = make_pipeline(StandardScaler(), MLPClassifier((4,), max_iter=400, random_state=1)).fit(frame, labels)
    compiled = compile_model(model, signature, frame.iloc[-100:])
    assert compiled.runtime == "onnx-float64", compiled.agreement
    assert compiled.agreement["refused_by_both"] > 0  # type: ignore[operator]
    runtime = open_runtime(compiled.runtime, compiled.files, signature)
    with pytest.raises(Invalid, match="Column 'hour': the model cannot answer null") as refusal:
        runtime.predict([[1.0, None, 2.0]])
    assert refusal.value.field == "hour"
    forest = RandomForestClassifier(5).fit(frame, labels)
    compiled = compile_model(forest, signature, frame.iloc[-100:])
    runtime = open_runtime(compiled.runtime, compiled.files, signature)
    with pytest.raises(Invalid, match=r"Column 'distance': the model cannot answer 1e\+300"):
        runtime.predict([[1e300, 1, 2.0]])
    assert runtime.predict([[1e30, 1, 2.0]])


def test_text_that_stands_for_null_is_not_converted(training: Any) -> None:
    signature, frame, labels = training(2)
    named = frame.assign(origin=frame.origin.cat.rename_categories({"JFK": "nan"}))
    model = prepared(DecisionTreeClassifier(max_depth=3)).fit(named, labels)
    with pytest.raises(Invalid, match="category 'nan'"):
        dict(COMPILERS)["onnx-float64"](model, signature, training_categories(named))


def test_settings_that_are_not_known_are_refused(training: Any, numeric: Any) -> None:
    _, frame, labels = training(2, columns=numeric)
    filled = frame.fillna(0.0)
    shifted = GradientBoostingClassifier(n_estimators=3, init=LogisticRegression(max_iter=5000))
    with pytest.raises(Invalid, match="init estimator"):
        forest_of(shifted.fit(filled / filled.max(), labels))
    with pytest.raises(Invalid, match="loss='exponential'"):
        forest_of(GradientBoostingClassifier(n_estimators=3, loss="exponential").fit(filled, labels))
    with pytest.raises(Invalid, match="several outputs"):
        forest_of(RandomForestRegressor(3).fit(filled, np.stack([labels, labels], axis=1)))
    with pytest.raises(Invalid, match="tweedie"):
        forest_of(xgboost.XGBRegressor(n_estimators=3, objective="reg:tweedie").fit(filled, labels))
    assert forest_of(LogisticRegression()) is None


def test_files_of_another_model_are_refused(training: Any, numeric: Any) -> None:
    signature, frame, labels = training(2)
    model = prepared(DecisionTreeClassifier(max_depth=3)).fit(frame, labels)
    files = compile_model(model, signature, frame.iloc[-100:]).files
    with pytest.raises(Corrupted, match="inputs of the widths"):
        open_runtime("onnx-float64", files, Signature(signature.task, numeric, classes=signature.classes))
    with pytest.raises(Corrupted, match="1 outputs, the signature 5"):
        open_runtime("onnx-float64", files, Signature(signature.task, signature.inputs, classes=tuple("abcde")))
    with pytest.raises(Corrupted, match="ONNX Runtime refused"):
        open_runtime("onnx-float64", {onnx.FILE: b"nonsense", CATEGORIES_FILE: b"{}"}, signature)
    timed = Signature(signature.task, (Column("at", ColumnType.TIME),), classes=signature.classes)
    with pytest.raises(Invalid, match="takes no times"):
        dict(COMPILERS)["onnx-float64"](model, timed, {})


LIGHT = """
import sys
from pathlib import Path
from relevo.registry.bundles import read_manifest
from relevo.runtimes.loading import load_runtime
assert not {"numpy", "onnxruntime"} & set(sys.modules)
folder = Path(sys.argv[1])
loaded = load_runtime(folder, read_manifest(folder))
assert loaded.probe() > 10 and not loaded.is_blocking
forbidden = {"mlflow", "dbos", "fastapi", "pandas", "sklearn", "polars", "deltalake", "onnx", "skl2onnx", "scipy"}
print(sorted(forbidden & set(sys.modules)))
"""


def test_a_sealed_version_is_loaded_with_onnx_runtime_alone(training: Any, tmp_path: Path) -> None:
    signature, frame, labels = training(4)
    model = prepared(GradientBoostingClassifier(n_estimators=3)).fit(frame, labels)
    compiled = compile_model(model, signature, frame.iloc[-100:])
    place = tmp_path / "v1"
    known: dict[str, Any] = {"model": "m", "version": 1, "run_id": "r", "signature": signature}
    write_bundle(place, runtime=compiled.runtime, files=compiled.files, **known)
    command = [sys.executable, "-c", LIGHT, str(place)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == "[]"
