"""What kind of model was loaded: what it predicts, and which classes. Runs in child processes only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from relevo.contract.model import Task
from relevo.errors import Invalid
from relevo.runtimes.original import check_no_labels

_SAY = "Say it: --task classification --classes no,yes, in the order of its probabilities."


def examine(model: Any, task: Task | None, classes: Sequence[str]) -> tuple[Task, tuple[str, ...]]:
    """The task of the model and the labels of its classes, as far as possible from itself.

    An estimator with ``predict_proba`` and ``classes_`` is a classifier; so is a booster whose objective is, and a
    Logit or Probit of statsmodels. What gives only labels is refused: an endpoint answers probabilities. Anything else
    is a regression, unless ``task`` says otherwise.

    Args:
        model: As ``model_folder.load_model`` gave it.
        task: What the person said, when they did.
        classes: Labels that the person gave.

    Raises:
        Invalid: It classifies without probabilities, or its classes are not known, or they are not those given.
    """
    known = _own_classes(model)
    if known is None and task is not Task.CLASSIFICATION:
        check_no_labels(model)
        return Task.REGRESSION, ()
    if task is Task.REGRESSION:
        raise Invalid(f"{type(model).__name__} is a classifier, not a regression.", field="task")
    found = known if known is not None and not classes else tuple(classes)
    if len(found) < 2:
        raise Invalid("The classes of this model are not to be found in it.", field="classes", hint=_SAY)
    if known is not None and len(found) != len(known):
        raise Invalid(f"The model has {len(known)} classes ({', '.join(known)}), got {len(found)}.", field="classes")
    return Task.CLASSIFICATION, found


def _own_classes(model: Any) -> tuple[str, ...] | None:
    """The labels of a classifier in the order of its probabilities; None for any other model."""
    if hasattr(model, "predict_proba") and hasattr(model, "classes_"):
        return tuple(_label(label) for label in model.classes_)
    fitted = getattr(model, "model", None)  # that of results of statsmodels
    if type(fitted).__module__.startswith("statsmodels.") and type(fitted).__name__ in ("Logit", "Probit"):
        return "0", "1"
    if type(model).__name__ != "Booster":
        return None
    objective, n_classes = _objective(model)
    if objective.startswith(("multi", "softmax")):
        return tuple(str(place) for place in range(n_classes))
    return ("0", "1") if objective.startswith(("binary", "cross_entropy", "xentropy")) else None


def _objective(booster: Any) -> tuple[str, int]:
    if hasattr(booster, "save_config"):  # XGBoost
        learner = json.loads(booster.save_config())["learner"]
        n_classes = int(learner["learner_model_param"]["num_class"])
        return str(learner["objective"]["name"]), n_classes
    text = booster.model_to_string(num_iteration=1)
    objective = next(
        (line.removeprefix("objective=") for line in text.splitlines() if line.startswith("objective")), ""
    )
    return objective, int(booster.num_model_per_iteration())


def _label(label: Any) -> str:
    is_number = hasattr(label, "is_integer") or isinstance(label, int)
    if is_number and not isinstance(label, bool) and float(label).is_integer():
        return str(int(label))
    return str(label)
