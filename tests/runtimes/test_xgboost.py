"""XGBoost's C library answers as its Python package does, without that package."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost

from relevo.errors import Corrupted, Invalid, Unavailable
from relevo.runtimes import compilation, original
from relevo.runtimes.compilation import compile_model
from relevo.runtimes.compilers import COMPILERS
from relevo.runtimes.frames import as_frame, rows_of_frame
from relevo.runtimes.loading import open_runtime
from relevo.runtimes.model import CATEGORIES_FILE, Column, ColumnType, Signature
from relevo.runtimes.xgboost import FILE, _library


def estimator(classes: int, **params: Any) -> Any:
    kind = xgboost.XGBClassifier if classes else xgboost.XGBRegressor
    return kind(n_estimators=25, max_depth=4, n_jobs=1, enable_categorical=True, **params)


@pytest.mark.parametrize("booster", ["gbtree", "dart"])
@pytest.mark.parametrize("classes", [0, 2, 4])
def test_xgboost_is_compiled_and_agrees_to_the_last_bit(classes: int, booster: str, training: Any) -> None:
    signature, frame, labels = training(classes)
    model = estimator(classes, booster=booster).fit(frame, labels)
    compiled = compile_model(model, signature, frame.iloc[-200:])
    assert compiled.runtime == "xgboost", compiled.agreement
    assert compiled.agreement["largest_difference"] == 0
    runtime = open_runtime("xgboost", compiled.files, signature)
    rows = [*rows_of_frame(frame, signature), ["??", None, None, None, None, None]]
    expected = original.predict(model, as_frame(rows, signature, compilation.training_categories(frame)), signature)
    np.testing.assert_array_equal(runtime.predict(rows), expected)
    np.testing.assert_array_equal([runtime.predict([row])[0] for row in rows], expected)
    assert runtime.predict([]) == []
    runtime.close()
    runtime.close()
    with pytest.raises(Unavailable, match="closed"):
        runtime.predict(rows)


def test_xgboost_answers_many_threads_at_once(training: Any) -> None:
    signature, frame, labels = training(4)
    model = estimator(4).fit(frame, labels)
    runtime = open_runtime("xgboost", compile_model(model, signature, frame).files, signature)
    rows = rows_of_frame(frame, signature)
    expected = runtime.predict(rows)
    with ThreadPoolExecutor(6) as pool:
        batches = [pool.submit(runtime.predict, rows) for _ in range(6)]
        singly = list(pool.map(lambda row: runtime.predict([row])[0], rows * 3))
    assert singly == expected * 3
    assert all(batch.result() == expected for batch in batches)
    runtime.close()


PARAMETERS: dict[int, dict[str, Any]] = {
    0: {"objective": "reg:squarederror"},
    2: {"objective": "binary:logistic"},
    4: {"objective": "multi:softprob", "num_class": 4},
}


@pytest.mark.parametrize("classes", PARAMETERS)
def test_a_plain_booster_is_compiled(classes: int, training: Any) -> None:
    signature, frame, labels = training(classes)
    data = xgboost.DMatrix(frame, labels, enable_categorical=True)
    model = xgboost.train(PARAMETERS[classes], data, 10)
    compiled = compile_model(model, signature, frame)
    assert (compiled.runtime, compiled.agreement["largest_difference"]) == ("xgboost", 0)


def test_only_the_trees_until_early_stopping_are_asked(training: Any) -> None:
    signature, frame, labels = training(2)
    model = estimator(2, early_stopping_rounds=2, learning_rate=1.0)
    model.fit(frame[:300], labels[:300], eval_set=[(frame[300:], labels[300:])], verbose=0)
    assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds()
    compiled = compile_model(model, signature, frame)
    assert (compiled.runtime, compiled.agreement["largest_difference"]) == ("xgboost", 0)


def test_text_alone_and_numbers_alone_are_compiled(training: Any, text: Any, numeric: Any) -> None:
    for columns in (text, numeric):
        signature, frame, labels = training(2, columns=columns)
        assert compile_model(estimator(2).fit(frame, labels), signature, frame).runtime == "xgboost"


def squared_error(labels: np.ndarray, answers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return answers - labels, np.ones_like(labels)


def test_what_the_booster_alone_cannot_answer_is_refused(training: Any, numeric: Any) -> None:
    compiler = dict(COMPILERS)["xgboost"]
    signature, frame, labels = training(0, columns=numeric)
    own = estimator(0, objective=squared_error).fit(frame, labels)
    with pytest.raises(Invalid, match="objective written in Python"):
        compiler(own, signature, {})
    zero = estimator(0, missing=0.0).fit(frame.fillna(1.0), labels)
    with pytest.raises(Invalid, match=r"missing=0\.0"):
        compiler(zero, signature, {})
    labels_only = xgboost.train(
        {"objective": "multi:softmax", "num_class": 4}, xgboost.DMatrix(frame, np.arange(len(frame)) % 4), 3
    )
    with pytest.raises(Invalid, match="shape"):
        compile_model(labels_only, training(4, columns=numeric)[0], frame)


def test_a_linear_booster_is_answered_by_the_original(training: Any, numeric: Any) -> None:
    signature, frame, labels = training(2, columns=numeric)
    compiled = compile_model(estimator(2, booster="gblinear").fit(frame, labels), signature, frame)
    assert compiled.runtime == "isolated"
    reasons = {one["runtime"]: one["reason"] for one in compiled.agreement["refused"]}  # type: ignore[attr-defined]
    assert "not supported by the current booster" in reasons["xgboost"]


def test_files_of_another_model_are_refused(training: Any, numeric: Any) -> None:
    signature, frame, labels = training(2)
    files = compile_model(estimator(2).fit(frame, labels), signature, frame).files
    with pytest.raises(Corrupted, match="6 inputs, the signature 3"):
        open_runtime("xgboost", files, Signature(signature.task, numeric, classes=signature.classes))
    with pytest.raises(Corrupted, match="1 outputs, the signature 5"):
        open_runtime("xgboost", files, Signature(signature.task, signature.inputs, classes=tuple("abcde")))
    with pytest.raises(Corrupted, match="no categories of the text column 'carrier'"):
        open_runtime("xgboost", {**files, CATEGORIES_FILE: b"{}"}, signature)
    with pytest.raises(Corrupted, match="XGBoost refused"):
        open_runtime("xgboost", {**files, FILE: b"{nonsense"}, signature)
    timed = (*signature.inputs[:-1], Column("at", ColumnType.TIME))
    with pytest.raises(Invalid, match="takes no times"):
        open_runtime("xgboost", files, Signature(signature.task, timed, classes=signature.classes))


LIGHT = """
import sys
from pathlib import Path
from relevo.runtimes.loading import load_runtime
from relevo.registry.bundles import read_manifest
folder = Path(sys.argv[1])
loaded = load_runtime(folder, read_manifest(folder))
assert loaded.probe() > 10
forbidden = {"mlflow", "dbos", "fastapi", "pandas", "sklearn", "polars", "deltalake", "xgboost", "scipy", "numpy"}
print(sorted(forbidden & set(sys.modules)))
"""


def test_a_sealed_version_is_loaded_without_the_python_package(training: Any, tmp_path: Path) -> None:
    from relevo.registry.bundles import write_bundle

    signature, frame, labels = training(2)
    compiled = compile_model(estimator(2).fit(frame, labels), signature, frame)
    write_bundle(
        *(tmp_path / "v1",),
        model="m",
        version=1,
        run_id="r",
        runtime=compiled.runtime,
        signature=signature,
        files=compiled.files,
    )
    command = [sys.executable, "-c", LIGHT, str(tmp_path / "v1")]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == "[]"


def test_without_xgboost_the_extra_is_named(training: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    signature, frame, labels = training(2)
    files = compile_model(estimator(2).fit(frame, labels), signature, frame).files
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "xgboost" else found(name))
    _library.cache_clear()
    with pytest.raises(Unavailable, match="library of xgboost") as refusal:
        open_runtime("xgboost", files, signature)
    assert "relevo[xgboost]" in str(refusal.value.hint)
    monkeypatch.undo()
    _library.cache_clear()
