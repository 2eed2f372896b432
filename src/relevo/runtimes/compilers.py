"""From the original model to the file of each compiled runtime. Runs in the training child only."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from relevo.contract.model import Task
from relevo.errors import Invalid
from relevo.runtimes import lightgbm, linear, onnx, xgboost
from relevo.runtimes.formulas import design_of, linearise_formula
from relevo.runtimes.linearise import linearise
from relevo.runtimes.model import Categories, Signature
from relevo.runtimes.onnx_conversion import convert

#: A compiler gives the runtime's files, or raises Invalid with the reason why it does not apply.
Compiler = Callable[[Any, Signature, Categories], Mapping[str, bytes]]


def _linear(model: Any, signature: Signature, categories: Categories) -> Mapping[str, bytes]:
    is_formula = design_of(model) is not None
    made = linearise_formula(model, signature) if is_formula else linearise(model, signature, categories)
    return {linear.FILE: msgspec.json.encode(made)}


def _lightgbm(model: Any, signature: Signature, categories: Categories) -> Mapping[str, bytes]:
    model = _alone(model)
    booster = getattr(model, "booster_", model)
    if not (type(booster).__module__.startswith("lightgbm") and hasattr(booster, "model_to_string")):
        raise Invalid(f"{type(model).__name__} is not a LightGBM model")
    if callable(getattr(model, "objective_", None)):
        raise Invalid("an objective written in Python is not part of the booster")
    _check_task(model, booster, signature)
    return {lightgbm.FILE: booster.model_to_string().encode()}


def _xgboost(model: Any, signature: Signature, categories: Categories) -> Mapping[str, bytes]:
    model = _alone(model)
    booster = model.get_booster() if hasattr(model, "get_booster") else model
    if not (type(booster).__module__.startswith("xgboost") and hasattr(booster, "save_raw")):
        raise Invalid(f"{type(model).__name__} is not an XGBoost model")
    if callable(getattr(model, "objective", None)):
        raise Invalid("an objective written in Python is not part of the booster")
    if not math.isnan(getattr(model, "missing", math.nan)):
        raise Invalid(f"missing={model.missing} is not supported, only NaN")
    _check_task(model, booster, signature)
    if booster is not model and booster.attr("best_iteration") is not None:
        booster = booster[: int(booster.attr("best_iteration")) + 1]  # the trees that the estimator asks
    return {xgboost.FILE: bytes(booster.save_raw("ubj"))}


def _onnx_double(model: Any, signature: Signature, categories: Categories) -> Mapping[str, bytes]:
    return {onnx.FILE: convert(model, signature, categories, is_single=False)}


def _onnx_single(model: Any, signature: Signature, categories: Categories) -> Mapping[str, bytes]:
    return {onnx.FILE: convert(model, signature, categories, is_single=True)}


def _alone(model: Any) -> Any:
    """The estimator of a pipeline that has nothing else."""
    while type(model).__name__ == "Pipeline" and len(model.steps) == 1:
        model = model.steps[0][1]
    return model


def _check_task(model: Any, booster: Any, signature: Signature) -> None:
    if signature.task is Task.CLASSIFICATION and booster is not model and not hasattr(model, "predict_proba"):
        raise Invalid(f"{type(model).__name__} is no classifier")


#: In the order of preference.
COMPILERS: tuple[tuple[str, Compiler], ...] = (
    ("linear", _linear),
    ("lightgbm", _lightgbm),
    ("xgboost", _xgboost),
    ("onnx-float64", _onnx_double),
    ("onnx-float32", _onnx_single),
)
