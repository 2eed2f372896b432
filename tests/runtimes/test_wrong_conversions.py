"""Conversions that raise no error and answer otherwise: each is shown to be wrong, found by agreement, and not used."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import lightgbm
import numpy as np
import onnxruntime
import pandas as pd
import pytest
import xgboost
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from relevo.contract.model import Task
from relevo.runtimes import agreement, original
from relevo.runtimes.compilation import Compiled, compile_model
from relevo.runtimes.frames import as_frame, rows_of_frame
from relevo.runtimes.loading import open_runtime
from relevo.runtimes.model import Column, ColumnType, Signature

pytestmark = pytest.mark.filterwarnings("ignore")  # converters warn of their own dependencies

DRAW = np.random.default_rng(0)
CODES = DRAW.integers(0, 8, 400).astype(float)
IS_LATE = (np.isin(CODES, [1, 4, 6]) ^ (DRAW.random(400) < 0.1)).astype(int)
NOISE = DRAW.normal(size=400)
EPOCHS = 1_364_774_400.0 + DRAW.uniform(0, 2.6e7, 400)


def described(frame: pd.DataFrame, task: Task = Task.CLASSIFICATION) -> Signature:
    columns = tuple(Column(str(name), ColumnType.FLOAT) for name in frame.columns)
    return Signature(task, columns, classes=("0", "1") if task is Task.CLASSIFICATION else ())


def raw(model: Any, width: int, *converters: tuple[type, str, str, str]) -> Callable[[Any], Any]:
    """What the converters make of the model by themselves, in float32: rows to answers."""
    from skl2onnx import convert_sklearn, update_registered_converter
    from skl2onnx.common.data_types import FloatTensorType
    from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes

    for kind, alias, module, function in converters:
        converter = getattr(importlib.import_module(module), function)
        options = {"nocl": [True, False], "zipmap": [True, False, "columns"]}
        update_registered_converter(kind, alias, calculate_linear_classifier_output_shapes, converter, options=options)
    final = model.steps[-1][1] if hasattr(model, "steps") else model
    is_classifier = hasattr(final, "predict_proba")
    file = convert_sklearn(
        model,
        initial_types=[("X", FloatTensorType([None, width]))],
        target_opset={"": 15, "ai.onnx.ml": 3},
        options={id(final): {"zipmap": False}} if is_classifier else None,
    )
    session = onnxruntime.InferenceSession(file.SerializeToString(), providers=["CPUExecutionProvider"])

    def ask(rows: Any) -> Any:
        values = np.array([[np.nan if value is None else value for value in row] for row in rows], dtype=np.float32)
        answers = session.run(None, {"X": values})[-1]
        return (answers[:, 1] if is_classifier else answers[:, 0]).tolist()

    return ask


LIGHTGBM = (
    *(lightgbm.LGBMClassifier, "LightGbmClassifier"),
    *("onnxmltools.convert.lightgbm.operator_converters.LightGbm", "convert_lightgbm"),
)
XGBOOST = (
    *(xgboost.XGBClassifier, "XgboostClassifier"),
    *("onnxmltools.convert.xgboost.operator_converters.XGBoost", "convert_xgboost"),
)


def found_wrong(model: Any, frame: pd.DataFrame, ask: Callable[[Any], Any], task: Task = Task.CLASSIFICATION) -> float:
    """The largest difference on the rows as they are; agreement must have found one, in float32's tolerance too."""
    signature = described(frame, task)
    rows = rows_of_frame(frame, signature)

    def truth(asked: Any) -> Any:
        return original.predict(model, as_frame(asked, signature, {}), signature).tolist()

    tried = agreement.trial(truth, rows, signature)
    compared = agreement.check(ask, tried, agreement.SINGLE_TOLERANCE)
    assert compared.disagreement is not None
    return float(np.abs(np.array(ask(rows)) - np.array(truth(rows))).max())


def served(model: Any, frame: pd.DataFrame, task: Task = Task.CLASSIFICATION) -> Compiled:
    """The version that is sealed: its runtime answers as the original, one by one and together."""
    signature = described(frame, task)
    compiled = compile_model(model, signature, frame)
    assert compiled.runtime != "isolated", compiled.agreement
    runtime = open_runtime(compiled.runtime, compiled.files, signature)
    expected = original.predict(model, frame, signature)
    rows = rows_of_frame(frame, signature)
    tolerance = compiled.agreement["tolerance"]
    np.testing.assert_allclose(runtime.predict(rows), expected, atol=tolerance)  # type: ignore[arg-type]
    np.testing.assert_allclose([runtime.predict([row])[0] for row in rows], expected, atol=tolerance)  # type: ignore[arg-type]
    return compiled


def test_histogram_boosting_with_categories() -> None:
    frame = pd.DataFrame({"code": CODES, "noise": NOISE})
    model = HistGradientBoostingClassifier(max_iter=20, categorical_features=[0]).fit(frame, IS_LATE)
    # This version of the converter refuses every such model, where earlier ones were wrong without a word.
    with pytest.raises(ValueError, match="Unable to create node 'TreeEnsembleClassifier'"):
        raw(model, 2)
    compiled = compile_model(model, described(frame), frame)
    assert (compiled.runtime, compiled.agreement["largest_difference"]) == ("isolated", 0)
    assert "categories that are numbers" in str(compiled.agreement["refused"])


def test_histogram_boosting_with_text_is_converted_by_its_categories(training: Any) -> None:
    signature, frame, labels = training(2)
    model = HistGradientBoostingClassifier(max_iter=8, categorical_features="from_dtype").fit(frame, labels)
    compiled = compile_model(model, signature, frame.iloc[-100:])
    assert compiled.runtime == "onnx-float64", compiled.agreement
    assert compiled.agreement["largest_difference"] < 1e-13  # type: ignore[operator]


def test_a_forest_with_nulls() -> None:
    frame = pd.DataFrame({"a": NOISE, "b": DRAW.normal(size=400)}).mask(DRAW.random((400, 2)) < 0.2)
    labels = (frame.a.isna() | (frame.b > 0)).astype(int)
    model = RandomForestClassifier(10, random_state=0).fit(frame, labels)
    assert found_wrong(model, frame, raw(model, 2)) > 0.5
    assert served(model, frame).runtime == "onnx-float64"


def test_trees_with_an_epoch_in_float32() -> None:
    seconds = DRAW.uniform(0, 3600, 400)  # float32 tells epochs apart that lie two minutes apart
    frame = pd.DataFrame({"at": 1_364_774_400.0 + seconds, "noise": NOISE})
    model = lightgbm.LGBMClassifier(n_estimators=30, verbose=-1, num_threads=1, min_child_samples=2)
    model.fit(frame, (np.sin(seconds / 100) * 3 + NOISE > 0).astype(int))
    assert found_wrong(model, frame, raw(model, 2, LIGHTGBM)) > 1e-3
    assert served(model, frame).runtime == "lightgbm"
    assert served(make_pipeline(FunctionTransformer(), model), frame).runtime == "onnx-float64"


def test_a_linear_model_with_an_epoch_in_float32() -> None:
    frame = pd.DataFrame({"at": EPOCHS, "noise": NOISE})
    model = make_pipeline(StandardScaler(), LogisticRegression())
    model.fit(frame, (NOISE + (EPOCHS - 1.377e9) / 1e7 > 0).astype(int))
    assert found_wrong(model, frame, raw(model, 2)) > agreement.SINGLE_TOLERANCE
    assert served(model, frame).runtime == "linear"


def test_a_scaler_before_xgboost() -> None:
    # Values on a grid, so that many stand exactly at a threshold: a last digit of the scaler's decides.
    frame = pd.DataFrame(np.round(DRAW.normal(size=(600, 4)) * 50) / 7 + 1000, columns=list("abcd"))
    labels = ((frame.a > 1001) ^ (DRAW.random(600) < 0.2)).astype(int)
    model = make_pipeline(StandardScaler(), xgboost.XGBClassifier(n_estimators=20, max_depth=5, n_jobs=1))
    model.fit(frame, labels)
    assert found_wrong(model, frame, raw(model, 4, XGBOOST)) > 0.01
    assert served(model, frame).runtime == "onnx-float64"


def test_lightgbm_with_category_codes_that_are_not_whole() -> None:
    frame = pd.DataFrame({"code": CODES, "noise": NOISE})
    model = lightgbm.LGBMClassifier(n_estimators=10, verbose=-1, num_threads=1, categorical_feature=[0])
    model.fit(frame, IS_LATE)
    between = frame.assign(code=frame.code + 0.5)  # LightGBM takes 1.5 for the category 1
    assert found_wrong(model, between, raw(model, 2, LIGHTGBM)) > 0.1
    compiled = served(model, between)
    assert (compiled.runtime, compiled.agreement["largest_difference"]) == ("lightgbm", 0)
