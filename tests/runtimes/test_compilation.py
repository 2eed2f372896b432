"""Each compiled runtime answers as its original, or is not used."""

from __future__ import annotations

import importlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import ElasticNet, Lasso, LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)

from relevo.errors import Corrupted, Invalid, Unavailable
from relevo.runtimes import agreement, compilation, original
from relevo.runtimes.compilation import compile_model
from relevo.runtimes.compilers import COMPILERS
from relevo.runtimes.frames import as_frame, rows_of_frame
from relevo.runtimes.linearise import linearise
from relevo.runtimes.loading import PROBE_FILE, open_runtime
from relevo.runtimes.model import Column, ColumnType, Signature

TEXT = ["carrier", "origin"]
NUMBERS = ["distance", "departs_at_s", "is_weekend"]


def prepared(final: Any, numbers: Any = None, encoder: Any = None, hour: Any = "drop", **more: Any) -> Pipeline:
    """A usual pipeline: encoded text, imputed and scaled numbers, a final model."""
    numbers = numbers or make_pipeline(SimpleImputer(), StandardScaler())
    encoder = encoder or OneHotEncoder(handle_unknown="ignore")
    steps = [("text", encoder, TEXT), ("numbers", numbers, NUMBERS), ("hour", hour, ["hour"])]
    return Pipeline([("prepare", ColumnTransformer(steps, **more)), ("model", final)])


def logistic() -> LogisticRegression:
    return LogisticRegression(max_iter=300)


LINEAR: dict[str, tuple[int, Any]] = {
    "binary": (2, lambda: prepared(logistic())),
    "multiclass": (4, lambda: prepared(logistic())),
    "regression": (0, lambda: prepared(LinearRegression())),
    "ridge": (0, lambda: prepared(Ridge())),
    "lasso": (0, lambda: prepared(Lasso(0.01))),
    "elastic net": (0, lambda: prepared(ElasticNet(0.01))),
    "median": (2, lambda: prepared(logistic(), make_pipeline(SimpleImputer(strategy="median"), RobustScaler()))),
    "min max": (2, lambda: prepared(logistic(), make_pipeline(SimpleImputer(), MinMaxScaler((-1, 2))))),
    "max abs": (2, lambda: prepared(logistic(), make_pipeline(SimpleImputer(), MaxAbsScaler()))),
    "not centred": (2, lambda: prepared(logistic(), make_pipeline(SimpleImputer(), StandardScaler(with_mean=False)))),
    "constant": (2, lambda: prepared(logistic(), make_pipeline(SimpleImputer(strategy="constant", fill_value=-1)))),
    "dense text": (
        2,
        lambda: prepared(logistic(), encoder=OneHotEncoder(handle_unknown="ignore", sparse_output=False)),
    ),
    "dropped": (2, lambda: prepared(logistic(), encoder=OneHotEncoder(handle_unknown="ignore", drop="first"))),
    "infrequent": (
        2,
        lambda: prepared(logistic(), encoder=OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=105)),
    ),
    "ordinal": (
        2,
        lambda: prepared(
            logistic(),
            encoder=make_pipeline(
                SimpleImputer(strategy="most_frequent"),
                OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
            ),
        ),
    ),
    "encoded hour": (2, lambda: prepared(logistic(), hour=OneHotEncoder(handle_unknown="ignore"))),
    "imputed encoded hour": (
        0,
        lambda: prepared(Ridge(), hour=make_pipeline(SimpleImputer(), OneHotEncoder(handle_unknown="ignore"))),
    ),
    "scaled afterwards": (
        2,
        lambda: Pipeline([*prepared(0, sparse_threshold=0).steps[:1], ("scale", StandardScaler()), ("m", logistic())]),
    ),
    "nested": (2, lambda: Pipeline([("inner", prepared(logistic()))])),
    "selected by type": (
        2,
        lambda: make_pipeline(
            ColumnTransformer(
                [
                    ("text", OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_include="category")),
                    ("rest", SimpleImputer(), make_column_selector(dtype_exclude="category")),
                ]
            ),
            MaxAbsScaler(),
            logistic(),
        ),
    ),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore:Found unknown categories")
@pytest.mark.parametrize("case", LINEAR)
def test_a_linear_pipeline_is_compiled_and_agrees(case: str, training: Any) -> None:
    classes, make = LINEAR[case]
    signature, frame, labels = training(classes)
    model = make().fit(frame, labels)
    compiled = compile_model(model, signature, frame.iloc[-200:])
    assert compiled.runtime == "linear", compiled.agreement
    assert compiled.agreement["largest_difference"] < 1e-9
    assert compiled.agreement["rows"].keys() >= {"holdout", "null", "unseen", "large", "extreme"}
    runtime = open_runtime("linear", compiled.files, signature)
    answers = runtime.predict(rows_of_frame(frame, signature))
    np.testing.assert_allclose(answers, original.predict(model, frame, signature), rtol=1e-9)


def test_a_bare_linear_model_is_compiled_and_refuses_what_the_original_refuses(training: Any, numeric: Any) -> None:
    signature, frame, labels = training(2, columns=numeric, nulls=False)
    model = make_pipeline(StandardScaler(), logistic()).fit(frame, labels)
    compiled = compile_model(model, signature, frame)
    assert compiled.runtime == "linear"
    assert compiled.agreement["refused_by_both"] >= len(numeric)
    with pytest.raises(Invalid, match="Column 'hour': the model cannot answer null") as refusal:
        open_runtime("linear", compiled.files, signature).predict([[1.0, None, 2.0]])
    assert refusal.value.field == "hour"


def booster(classes: int, **params: Any) -> Any:
    kind = lightgbm.LGBMClassifier if classes else lightgbm.LGBMRegressor
    return kind(n_estimators=25, min_child_samples=5, verbose=-1, num_threads=1, **params)


@pytest.mark.parametrize("classes", [0, 2, 4])
def test_lightgbm_is_compiled_and_agrees(classes: int, training: Any) -> None:
    signature, frame, labels = training(classes)
    model = booster(classes).fit(frame, labels)
    compiled = compile_model(model, signature, frame.iloc[-200:])
    assert compiled.runtime == "lightgbm", compiled.agreement
    assert compiled.agreement["largest_difference"] == 0
    assert compiled.agreement["refused"][0]["runtime"] == "linear"
    runtime = open_runtime("lightgbm", compiled.files, signature)
    rows = [*rows_of_frame(frame, signature), ["??", None, None, None, None, None]]
    categories = compilation.training_categories(frame)
    expected = original.predict(model, as_frame(rows, signature, categories), signature)
    np.testing.assert_array_equal(runtime.predict(rows), expected)
    np.testing.assert_array_equal([runtime.predict([row])[0] for row in rows], expected)
    assert runtime.predict([]) == []
    runtime.close()
    runtime.close()


def test_lightgbm_answers_many_threads_at_once(training: Any) -> None:
    signature, frame, labels = training(4)
    model = booster(4).fit(frame, labels)
    runtime = open_runtime("lightgbm", compile_model(model, signature, frame).files, signature)
    rows = rows_of_frame(frame, signature)
    expected = runtime.predict(rows)
    with ThreadPoolExecutor(6) as pool:
        batches = [pool.submit(runtime.predict, rows) for _ in range(6)]
        singly = list(pool.map(lambda row: runtime.predict([row])[0], rows * 5))
    assert singly == expected * 5
    assert all(batch.result() == expected for batch in batches)
    runtime.close()
    with pytest.raises(Unavailable, match="closed"):
        runtime.predict(rows)


def test_a_plain_booster_with_early_stopping_is_compiled(training: Any) -> None:
    signature, frame, labels = training(2)
    fitting = lightgbm.Dataset(frame[:300], labels[:300])
    model = lightgbm.train(
        {"objective": "binary", "verbose": -1, "num_threads": 1, "learning_rate": 0.5},
        fitting,
        200,
        valid_sets=[fitting.create_valid(frame[300:], labels[300:])],
        callbacks=[lightgbm.early_stopping(3, verbose=False)],
    )
    assert 0 < model.best_iteration < 200
    assert compile_model(model, signature, frame).runtime == "lightgbm"


def test_lightgbm_with_text_alone_or_numbers_alone_is_compiled(training: Any, text: Any, numeric: Any) -> None:
    for columns in (text, numeric):
        signature, frame, labels = training(2, columns=columns)
        model = booster(2).fit(frame, labels)
        assert compile_model(model, signature, frame).runtime == "lightgbm"


def test_a_regression_with_another_objective_is_compiled(training: Any) -> None:
    signature, frame, labels = training(0)
    model = booster(0, objective="poisson").fit(frame, np.exp(labels / 3))
    assert compile_model(model, signature, frame).runtime == "lightgbm"


def squared_error(labels: np.ndarray, answers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return answers - labels, np.ones_like(labels)


def test_an_objective_written_in_python_is_not_compiled(training: Any) -> None:
    signature, frame, labels = training(0)
    model = booster(0, objective=squared_error).fit(frame, labels)
    with pytest.raises(Invalid, match="objective written in Python"):
        dict(compilation.COMPILERS)["lightgbm"](model, signature, {})


class Shifted(StandardScaler):
    """A team's own step that looks like one that is known."""

    def transform(self, X: Any, copy: Any = None) -> Any:  # noqa: N803
        return np.tanh(super().transform(X))


UNSUPPORTED: dict[str, tuple[int, Any]] = {
    "forest": (2, lambda: make_pipeline(prepared(0)[:-1], RandomForestClassifier(5))),
    "own step": (2, lambda: prepared(logistic(), make_pipeline(SimpleImputer(), Shifted()))),
    "interactions": (2, lambda: prepared(logistic(), make_pipeline(SimpleImputer(), PolynomialFeatures()))),
    "function": (2, lambda: prepared(logistic(), make_pipeline(SimpleImputer(), FunctionTransformer(np.cbrt)))),
    "indicator": (2, lambda: prepared(logistic(), SimpleImputer(add_indicator=True))),
    "clipped": (2, lambda: prepared(logistic(), make_pipeline(SimpleImputer(), MinMaxScaler(clip=True)))),
    "weighted": (2, lambda: prepared(logistic(), transformer_weights={"text": 2.0})),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("case", UNSUPPORTED)
def test_what_is_not_known_is_not_compiled(case: str, training: Any) -> None:
    classes, make = UNSUPPORTED[case]
    signature, frame, labels = training(classes)
    model = make().fit(frame, labels)
    with pytest.raises(Invalid, match=r"support|not a linear|columns"):
        linearise(model, signature, compilation.training_categories(frame))
    with pytest.raises(Invalid, match="Pipeline is not a LightGBM model"):
        dict(compilation.COMPILERS)["lightgbm"](model, signature, {})


TEAM_CODE = """
import numpy as np
from sklearn.preprocessing import StandardScaler


class Squashed(StandardScaler):
    def transform(self, X, copy=None):
        return np.tanh(super().transform(X))
"""


def test_a_model_with_the_teams_own_code_is_isolated_with_it(
    training: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "team_steps").mkdir()
    (tmp_path / "team_steps/__init__.py").write_text(TEAM_CODE)
    monkeypatch.syspath_prepend(tmp_path)
    squashed = importlib.import_module("team_steps").Squashed
    signature, frame, labels = training(2)
    model = prepared(logistic(), make_pipeline(SimpleImputer(), squashed())).fit(frame, labels)
    compiled = compile_model(model, signature, frame, package=tmp_path)
    assert compiled.runtime == "isolated"
    assert [refusal["runtime"] for refusal in compiled.agreement["refused"]] == list(dict(COMPILERS))
    assert compiled.agreement["largest_difference"] < 1e-9
    assert compiled.files.keys() == {
        *("runtime/background.json", "runtime/categories.json", "runtime/probe.json"),
        *("model/MLmodel", "model/model.pkl"),
        "model/code/team_steps/__init__.py",
    }
    with pytest.raises(Unavailable, match="did not start: ModuleNotFoundError: No module named 'team_steps'"):
        compile_model(model, signature, frame)


def trial_of(model: Any, signature: Signature, frame: Any) -> agreement.Trial:
    categories = compilation.training_categories(frame)
    return agreement.trial(
        lambda rows: original.predict(model, as_frame(rows, signature, categories), signature).tolist(),
        rows_of_frame(frame, signature),
        signature,
    )


def test_a_changed_leaf_is_found(training: Any) -> None:
    signature, frame, labels = training(2)
    model = booster(2).fit(frame, labels)
    compiled = compile_model(model, signature, frame)
    name, content = "runtime/lightgbm.txt", compiled.files["runtime/lightgbm.txt"]
    place = content.index(b"leaf_value=") + len(b"leaf_value=")
    while not content[place : place + 1].isdigit():
        place += 1
    place += 4  # a digit after the point
    digit = b"1" if content[place : place + 1] != b"1" else b"2"
    wrong = {name: content[:place] + digit + content[place + 1 :]}
    tried = trial_of(model, signature, frame)
    found = compilation.compare(open_runtime("lightgbm", wrong, signature), tried)
    assert found.disagreement is not None and "the original answers" in found.disagreement
    right = compilation.compare(open_runtime("lightgbm", compiled.files, signature), tried)
    assert right.disagreement is None


def test_swapped_categories_and_a_wrong_weight_are_found(training: Any) -> None:
    signature, frame, labels = training(2)
    trees = booster(2).fit(frame, labels)
    text = compile_model(trees, signature, frame).files["runtime/lightgbm.txt"]
    swapped = {"runtime/lightgbm.txt": text.replace(b'["AA", "B6"', b'["B6", "AA"')}
    assert swapped["runtime/lightgbm.txt"] != text
    runtime = open_runtime("lightgbm", swapped, signature)
    assert compilation.compare(runtime, trial_of(trees, signature, frame)).disagreement is not None

    model = prepared(logistic()).fit(frame, labels)
    content = json.loads(compile_model(model, signature, frame).files["runtime/linear.json"])
    content["tables"][0]["missing"][0] += 1e-6
    runtime = open_runtime("linear", {"runtime/linear.json": json.dumps(content).encode()}, signature)
    found = compilation.compare(runtime, trial_of(model, signature, frame))
    assert found.disagreement is not None
    assert 1e-9 < found.largest_difference < 1e-5


def test_a_runtime_in_float32_is_found_by_the_epoch_like_column(training: Any, numeric: Any) -> None:
    signature, frame, labels = training(2, columns=numeric, nulls=False)
    model = make_pipeline(StandardScaler(), logistic()).fit(frame, labels)
    right = open_runtime("linear", compile_model(model, signature, frame).files, signature)
    tried = trial_of(model, signature, frame)
    places = [i for i, kind in enumerate(tried.kinds) if kind == "holdout"]
    plain = agreement.Trial(
        signature, ["holdout"] * len(places), [tried.rows[i] for i in places], [tried.expected[i] for i in places]
    )
    assert agreement.check(right.predict, plain).disagreement is None
    narrow = agreement.check(lambda rows: right.predict([[float(np.float32(v)) for v in row] for row in rows]), plain)  # type: ignore[arg-type]
    assert narrow.disagreement is not None


def test_a_wrong_conversion_is_not_used_and_the_evidence_says_so(
    training: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    signature, frame, labels = training(2)
    right = dict(compilation.COMPILERS)["linear"]

    def wrong(*arguments: Any) -> dict[str, bytes]:
        content = json.loads(right(*arguments)["runtime/linear.json"])
        content["intercept"][0] += 1e-3
        return {"runtime/linear.json": json.dumps(content).encode()}

    monkeypatch.setattr(compilation, "COMPILERS", (("linear", wrong), ("linear", right)))
    model = prepared(logistic()).fit(frame, labels)
    compiled = compile_model(model, signature, frame)
    assert "the original answers" in compiled.agreement["refused"][0]["reason"]
    assert compiled.agreement["largest_difference"] < 1e-9
    expected = right(model, signature, compilation.training_categories(frame))
    assert compiled.files["runtime/linear.json"] == expected["runtime/linear.json"]


def test_a_model_that_cannot_answer_its_signature_is_refused(training: Any, numeric: Any) -> None:
    signature, frame, labels = training(2, columns=numeric, nulls=False)
    model = logistic().fit(frame / frame.max(), labels)
    with pytest.raises(Invalid, match="classes"):
        compile_model(model, signature_with(signature, ("a", "b", "c")), frame)
    four = booster(4).fit(frame, np.arange(len(frame)) % 4).booster_
    with pytest.raises(Invalid, match="one number a row, got 4"):
        compile_model(four, signature, frame)
    with pytest.raises(ValueError, match="feature"):
        compile_model(logistic().fit(frame[["hour"]], labels), signature, frame)
    with pytest.raises(Invalid, match="got none"):
        compile_model(model, signature, frame.iloc[:0])


def signature_with(signature: Signature, classes: tuple[str, ...]) -> Signature:
    return Signature(signature.task, signature.inputs, classes=classes)


def test_the_probe_holds_rows_of_every_kind(training: Any) -> None:
    signature, frame, labels = training(2)
    compiled = compile_model(booster(2).fit(frame, labels), signature, frame)
    probe = json.loads(compiled.files[PROBE_FILE])
    assert 10 <= len(probe["rows"]) == len(probe["outputs"]) <= 30


def test_files_of_another_model_are_refused(training: Any, numeric: Any) -> None:
    signature, frame, labels = training(2)
    files = compile_model(booster(2).fit(frame, labels), signature, frame).files
    narrow = Signature(signature.task, numeric, classes=signature.classes)
    with pytest.raises(Corrupted, match="6 inputs, the signature 3"):
        open_runtime("lightgbm", files, narrow)
    with pytest.raises(Corrupted, match="1 outputs, the signature 5"):
        open_runtime("lightgbm", files, signature_with(signature, tuple("abcde")))
    inputs = tuple(Column(c.name, ColumnType.TEXT) if c.name == "hour" else c for c in signature.inputs)
    with pytest.raises(Corrupted, match="no categories of the text column 'hour'"):
        open_runtime("lightgbm", files, Signature(signature.task, inputs, classes=signature.classes))
    with pytest.raises(Corrupted, match="LightGBM refused"):
        open_runtime("lightgbm", {"runtime/lightgbm.txt": b"tree\nnonsense"}, signature)
    with pytest.raises(Corrupted, match="has no runtime/linear"):
        open_runtime("linear", files, signature)
    with pytest.raises(Corrupted, match="runtime/linear"):
        open_runtime("linear", {"runtime/linear.json": b"{}"}, signature)
    with pytest.raises(Invalid, match="Unknown runtime 'onnx'"):
        open_runtime("onnx", files, signature)
