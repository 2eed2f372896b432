"""Linear models of statsmodels by formula: compiled where each term is one column, left alone elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm  # type: ignore[import-untyped]
import statsmodels.formula.api as smf  # type: ignore[import-untyped]

from relevo.errors import Invalid
from relevo.runtimes.compilation import compile_model
from relevo.runtimes.formulas import linearise_formula
from relevo.runtimes.frames import rows_of_frame
from relevo.runtimes.loading import open_runtime

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(
    ("classes", "formula"),
    [
        (0, "label ~ distance + hour"),
        (0, "label ~ distance + C(carrier) + origin"),
        (0, "label ~ 0 + carrier + C(origin, Sum) + distance"),
        (2, "label ~ distance + hour + C(carrier)"),
    ],
)
def test_a_formula_of_columns_is_compiled_and_agrees_on_every_row(training: Any, classes: int, formula: str) -> None:
    signature, frame, label = training(classes)
    fit = smf.logit if classes else smf.ols
    fitted = fit(formula, frame.assign(label=label)).fit(**({"disp": False} if classes else {}))
    compiled = compile_model(fitted, signature, frame)
    assert compiled.runtime == "linear", compiled.agreement
    assert compiled.agreement["refused_by_both"] > 0  # nulls, of which the original makes NaN
    runtime = open_runtime("linear", compiled.files, signature)
    rows = rows_of_frame(frame.dropna().head(50), signature)
    assert runtime.predict(rows) == pytest.approx(fitted.predict(frame.dropna().head(50)).to_list(), abs=1e-12)
    with pytest.raises(Invalid, match="cannot answer null"):
        runtime.predict([["UA", "JFK", None, 9, 1.37e9, False]])


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("label ~ distance * hour", "distance:hour is not one column"),
        ("label ~ np.log1p(distance)", r"np.log1p\(distance\) is not one column"),
        ("label ~ C(hour)", r"C\(hour\) is not supported"),
    ],
)
def test_other_terms_are_refused_by_name(training: Any, formula: str, message: str) -> None:
    signature, frame, label = training(0)
    with pytest.raises(Invalid, match=message):
        linearise_formula(smf.ols(formula, frame.assign(label=label)).fit(), signature)


def test_other_models_are_refused_by_name(training: Any) -> None:
    signature, frame, label = training(0)
    data = frame.assign(label=np.round(np.abs(label)))
    with pytest.raises(Invalid, match="GLM of statsmodels"):
        linearise_formula(smf.glm("label ~ distance", data, family=sm.families.Poisson()).fit(), signature)
