"""The task and the classes of a model, from itself."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from relevo.contract.model import Task
from relevo.errors import Invalid
from relevo.imports.examining import examine
from relevo.imports.rows import known_texts

X = np.arange(40, dtype=float).reshape(20, 2)
HALVES = np.repeat([0, 1], 10)


class Probabilities:
    """What a pyfunc looks like: it predicts, and says nothing of itself."""

    def predict(self, frame: Any) -> Any:
        return np.full(len(frame), 0.5)


def test_a_classifier_gives_its_classes_and_anything_else_is_a_regression() -> None:
    whole = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, HALVES)
    assert examine(whole, None, ()) == (Task.CLASSIFICATION, ("0", "1"))
    words = LogisticRegression().fit(X, np.where(HALVES == 1, "yes", "no"))
    assert examine(words, None, ()) == (Task.CLASSIFICATION, ("no", "yes"))
    assert examine(words, None, ("stays", "goes")) == (Task.CLASSIFICATION, ("stays", "goes"))
    booleans = LogisticRegression().fit(X, HALVES == 1)
    assert examine(booleans, None, ()) == (Task.CLASSIFICATION, ("False", "True"))
    assert examine(LinearRegression().fit(X, X[:, 0]), None, ()) == (Task.REGRESSION, ())
    assert examine(Probabilities(), None, ()) == (Task.REGRESSION, ())
    assert examine(Probabilities(), Task.CLASSIFICATION, ("no", "yes")) == (Task.CLASSIFICATION, ("no", "yes"))


@pytest.mark.parametrize(
    ("params", "labels", "expected"),
    [
        ({"objective": "binary"}, HALVES, (Task.CLASSIFICATION, ("0", "1"))),
        ({"objective": "multiclass", "num_class": 3}, np.arange(20) % 3, (Task.CLASSIFICATION, ("0", "1", "2"))),
        ({"objective": "regression"}, X[:, 0], (Task.REGRESSION, ())),
    ],
)
def test_a_booster_says_it_by_its_objective(params: dict[str, Any], labels: Any, expected: Any) -> None:
    data = lightgbm.Dataset(X, labels, params={"verbose": -1, "min_data_in_leaf": 2})
    booster = lightgbm.train({**params, "verbose": -1, "num_threads": 1}, data, num_boost_round=2)
    assert examine(booster, None, ()) == expected


def test_what_is_not_known_or_contradicts_is_refused() -> None:
    model = LogisticRegression().fit(X, HALVES)
    with pytest.raises(Invalid, match="gives labels and no probabilities") as refused:
        examine(LinearSVC().fit(X, HALVES), None, ())
    assert "CalibratedClassifierCV" in (refused.value.hint or "")
    with pytest.raises(Invalid, match="not to be found in it"):
        examine(Probabilities(), Task.CLASSIFICATION, ())
    with pytest.raises(Invalid, match="is a classifier, not a regression"):
        examine(model, Task.REGRESSION, ())
    with pytest.raises(Invalid, match=r"has 2 classes \(0, 1\), got 3"):
        examine(model, None, ("a", "b", "c"))


def test_texts_are_found_in_the_encoders_of_a_pipeline() -> None:
    frame = pd.DataFrame({"city": ["Oslo", "Bergen", "Oslo", "Bergen"]})
    model = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(frame, [0, 1, 0, 1])
    assert known_texts(model) == {"city": ["Bergen", "Oslo"]}
    assert known_texts(Probabilities()) == {}
