"""What the child of an import makes of a folder that MLflow wrote."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import lightgbm
import msgspec
import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf  # type: ignore[import-untyped]

from relevo.errors import Invalid
from relevo.identity.model import Principal, Role
from relevo.imports.child import pack
from relevo.imports.folder import FILES, MODEL
from relevo.imports.model import Asked
from relevo.platform.encoding import to_json
from relevo.platform.mlflow_models import RegisteredVersion
from relevo.registry.load_rows import LOAD_ROWS_FILE, LoadRows

pytestmark = pytest.mark.filterwarnings("ignore")

DRAW = np.random.default_rng(5)
PARCELS = pd.DataFrame({"weight": DRAW.gamma(2, 3, 200), "depot": DRAW.choice(["north", "port"], 200)})
IS_LATE = (PARCELS["weight"] + DRAW.normal(0, 2, 200) > 5).astype(int)


@pytest.fixture(scope="module")
def mlflow() -> ModuleType:
    """MLflow, whose own imports warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.lightgbm
        import mlflow.pyfunc
        import mlflow.statsmodels

        return mlflow


@pytest.fixture
def packed(tmp_path: Path, mlflow: ModuleType) -> Callable[..., dict[str, Any]]:
    """``packed(flavor, frame, **model)`` saves a model as its data scientist would, and packs it."""
    from mlflow.models import infer_signature

    def make(flavor: str, frame: pd.DataFrame, **model: Any) -> dict[str, Any]:
        signature = infer_signature(frame, np.array([0.5]))
        getattr(mlflow, flavor).save_model(path=tmp_path / MODEL, signature=signature, pip_requirements=[], **model)
        now = datetime(2024, 1, 1, tzinfo=UTC)
        registered = RegisteredVersion("parcels", 1, "run", "folder", now, {})
        asked = Asked("models:/parcels/1", "parcels", registered, Principal("ada", Role.ENGINEER), "ada")
        return pack(str(tmp_path), to_json(asked))

    return make


def test_a_logit_of_statsmodels_is_a_classifier_and_compiled(
    packed: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    fitted = smf.logit("is_late ~ weight + C(depot)", PARCELS.assign(is_late=IS_LATE)).fit(disp=False)
    made = packed("statsmodels", PARCELS, statsmodels_model=fitted)
    assert made["runtime"] == "linear", made["agreement"]
    assert (made["signature"]["task"], made["signature"]["classes"]) == ("classification", ("0", "1"))
    rows = msgspec.json.decode((tmp_path / FILES / LOAD_ROWS_FILE).read_bytes(), type=LoadRows)
    assert rows.columns == ("weight", "depot") and len(rows.rows) == 300


def test_a_model_that_wants_text_as_categories_is_told_how_text_reaches_it(
    packed: Callable[..., dict[str, Any]],
) -> None:
    fitted = lightgbm.LGBMClassifier(n_estimators=2, verbose=-1, n_jobs=1).fit(
        PARCELS.astype({"depot": "category"}), IS_LATE
    )
    with pytest.raises(Invalid, match="does not answer rows of its own signature") as refused:
        packed("lightgbm", PARCELS, lgb_model=fitted)
    assert "Text reaches it as plain strings" in (refused.value.hint or "")


def test_several_outputs_are_refused(packed: Callable[..., dict[str, Any]], mlflow: ModuleType) -> None:
    class Both(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]
        def predict(self, context, model_input, params=None):
            return model_input[["weight"]].assign(cost=model_input["weight"] * 2)

    with pytest.raises(Invalid, match=r"one number a row.*got 2") as refused:
        packed("pyfunc", PARCELS[["weight"]], python_model=Both())
    assert "a model for each" in (refused.value.hint or "")
