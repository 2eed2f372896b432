"""Ensembles of trees of scikit-learn, LightGBM and XGBoost as arrays in float64. Runs in the training child only.

The usual converters round thresholds and leaves to float32. Here each tree is told exactly as its library walks it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from relevo.errors import Invalid

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Tree:
    """One tree that adds to one output. Arrays ``(n_nodes,)``; the root is node 0.

    ``left`` is where ``value <= threshold`` (or ``<``, by the forest) goes, and nulls by ``null_left``. ``sets`` holds
    the categories that go left, by node, where a node asks for categories.
    """

    output: int
    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    is_leaf: np.ndarray
    null_left: np.ndarray
    value: np.ndarray
    sets: dict[int, list[float]]


@dataclass(frozen=True, slots=True)
class Forest:
    """Scores are ``base`` plus ``scale`` times what the trees add, then the link: identity, logistic, softmax or exp.

    ``is_narrow``: the library rounds inputs to float32. ``is_strict``: left is ``<``. ``zero_is_null``: it takes zeros
    of a sparse matrix as null.
    """

    trees: list[Tree]
    base: list[float]
    link: str
    scale: float = 1.0
    is_narrow: bool = False
    is_strict: bool = False
    zero_is_null: bool = False


def forest_of(model: Any) -> Forest | None:
    """The forest of a fitted estimator; None when it is none that is known.

    Raises:
        Invalid: It is one with a setting that is not supported.
    """
    root, name = type(model).__module__.partition(".")[0], type(model).__name__
    if root == "sklearn":
        if name.startswith("HistGradientBoosting"):
            return _hist_gradient_boosting(model)
        if name.startswith("GradientBoosting"):
            return _gradient_boosting(model)
        if name.startswith(("RandomForest", "ExtraTree", "DecisionTree")) and hasattr(model, "n_outputs_"):
            return _averaged(model)
    if root == "lightgbm" and hasattr(model, "booster_"):
        return _lightgbm(model)
    if root == "xgboost" and hasattr(model, "get_booster"):
        return _xgboost(model)
    return None


def _averaged(model: Any) -> Forest:
    """Trees whose leaves are averaged, of one tree or many."""
    import numpy as np

    if model.n_outputs_ != 1:
        raise Invalid(f"{type(model).__name__} with several outputs is not supported")
    trees = [each.tree_ for each in getattr(model, "estimators_", [model])]
    n_classes = len(model.classes_) if hasattr(model, "classes_") else 0
    # Of two classes the second is told, of more each by a tree of its own.
    wanted = [0] if not n_classes else [1] if n_classes == 2 else list(range(n_classes))
    made = []
    for tree in trees:
        values = tree.value[:, 0, :]
        if n_classes:
            values = values / values.sum(axis=1, keepdims=True)
        made += [_sklearn_tree(tree, np.ascontiguousarray(values[:, k]), place) for place, k in enumerate(wanted)]
    return Forest(made, [0.0] * len(wanted), "identity", scale=1.0 / len(trees), is_narrow=True)


def _gradient_boosting(model: Any) -> Forest:
    import numpy as np

    if model.init is not None and model.init != "zero":
        raise Invalid(f"{type(model).__name__} with an init estimator is not supported")
    base = np.asarray(model._raw_predict_init(np.zeros((1, model.n_features_in_), dtype=np.float32)))[0]
    made = [
        _sklearn_tree(tree.tree_, model.learning_rate * tree.tree_.value[:, 0, 0], place)
        for stage in model.estimators_
        for place, tree in enumerate(stage)
    ]
    if not hasattr(model, "classes_"):
        return Forest(made, base.tolist(), "identity", is_narrow=True)
    if model.loss != "log_loss":
        raise Invalid(f"{type(model).__name__} with loss={model.loss!r} is not supported")
    return Forest(made, base.tolist(), "logistic" if len(base) == 1 else "softmax", is_narrow=True)


def _sklearn_tree(tree: Any, value: np.ndarray, output: int) -> Tree:
    return Tree(
        output=output,
        feature=tree.feature,
        threshold=tree.threshold,
        left=tree.children_left,
        right=tree.children_right,
        is_leaf=tree.children_left < 0,
        null_left=tree.missing_go_to_left,
        value=value,
        sets={},
    )


_LINKS = {
    "HalfSquaredError": "identity",
    "AbsoluteError": "identity",
    "PinballLoss": "identity",
    "HalfPoissonLoss": "exp",
    "HalfGammaLoss": "exp",
    "HalfBinomialLoss": "logistic",
    "HalfMultinomialLoss": "softmax",
}


def _hist_gradient_boosting(model: Any) -> Forest:
    import numpy as np

    loss = type(model._loss).__name__
    if loss not in _LINKS:
        raise Invalid(f"{type(model).__name__} with {loss} is not supported")
    made = []
    for stage in model._predictors:
        for place, predictor in enumerate(stage):
            nodes = predictor.nodes
            sets = {
                int(i): _bits(predictor.raw_left_cat_bitsets[nodes["bitset_idx"][i]])
                for i in np.flatnonzero(nodes["is_categorical"] & ~nodes["is_leaf"].astype(bool))
            }
            made.append(
                Tree(
                    output=place,
                    feature=nodes["feature_idx"],
                    threshold=nodes["num_threshold"],
                    left=nodes["left"],
                    right=nodes["right"],
                    is_leaf=nodes["is_leaf"].astype(bool),
                    null_left=nodes["missing_go_to_left"],
                    value=nodes["value"],
                    sets=sets,
                )
            )
    return Forest(made, np.ravel(model._baseline_prediction).tolist(), _LINKS[loss])


def _bits(words: Any) -> list[float]:
    return [float(32 * i + bit) for i, word in enumerate(words) for bit in range(32) if int(word) >> bit & 1]


def _lightgbm(model: Any) -> Forest:
    if callable(getattr(model, "objective_", None)):
        raise Invalid("an objective written in Python is not part of the booster")
    told = model.booster_.dump_model()
    objective, *settings = told.get("objective", "").split()
    n_outputs = told["num_tree_per_iteration"]
    link = {"regression": "identity", "regression_l1": "identity", "huber": "identity", "quantile": "identity"}
    link |= {"poisson": "exp", "gamma": "exp", "tweedie": "exp", "multiclass": "softmax", "binary": "logistic"}
    if objective not in link or "sqrt" in settings or (objective == "binary" and "sigmoid:1" not in settings):
        raise Invalid(f"LightGBM's objective {told.get('objective')!r} is not supported")
    trees = [
        _lightgbm_tree(each["tree_structure"], number % n_outputs) for number, each in enumerate(told["tree_info"])
    ]
    scale = n_outputs / len(trees) if told.get("average_output") else 1.0
    return Forest(trees, [0.0] * n_outputs, link[objective], scale=scale)


def _lightgbm_tree(root: dict[str, Any], output: int) -> Tree:
    """LightGBM takes a null for zero where training had none."""
    import numpy as np

    nodes: list[dict[str, Any]] = []

    def number(node: dict[str, Any]) -> int:
        place = len(nodes)
        nodes.append(node)
        if "split_feature" in node:
            if node["decision_type"] != "<=" or node["missing_type"] == "Zero":
                raise Invalid("LightGBM's splits by category or by zero are not supported in a pipeline")
            node["left"], node["right"] = number(node["left_child"]), number(node["right_child"])
        return place

    number(root)
    is_leaf = np.array(["split_feature" not in node for node in nodes])
    threshold = np.array([node.get("threshold", 0.0) for node in nodes])
    told = np.array([node.get("default_left", False) for node in nodes])
    as_zero = np.array([node.get("missing_type") == "None" for node in nodes])
    return Tree(
        output=output,
        feature=np.array([node.get("split_feature", 0) for node in nodes]),
        threshold=threshold,
        left=np.array([node.get("left", -1) for node in nodes]),
        right=np.array([node.get("right", -1) for node in nodes]),
        is_leaf=is_leaf,
        null_left=np.where(as_zero, threshold >= 0.0, told),
        value=np.array([node.get("leaf_value", 0.0) for node in nodes]),
        sets={},
    )


def _xgboost(model: Any) -> Forest:
    booster = model.get_booster()
    if booster.attr("best_iteration") is not None:
        booster = booster[: int(booster.attr("best_iteration")) + 1]
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    objective, ensemble = learner["objective"]["name"], learner["gradient_booster"]
    link = {"reg:squarederror": "identity", "binary:logistic": "logistic", "multi:softprob": "softmax"}.get(objective)
    if link is None or ensemble["name"] != "gbtree":
        raise Invalid(f"XGBoost's objective {objective} with {ensemble['name']} is not supported in a pipeline")
    if not math.isnan(getattr(model, "missing", math.nan)):
        raise Invalid(f"missing={model.missing} is not supported, only NaN")
    base = [float(each) for each in str(learner["learner_model_param"]["base_score"]).strip("[]").split(",")]
    if link == "logistic":
        base = [math.log(each / (1.0 - each)) for each in base]
    n_outputs = max(1, int(learner["learner_model_param"]["num_class"]))
    base = base * n_outputs if len(base) == 1 else base
    trees = list(_xgboost_trees(ensemble["model"]))
    return Forest(trees, base, link, is_narrow=True, is_strict=True, zero_is_null=True)


def _xgboost_trees(told: dict[str, Any]) -> Iterator[Tree]:
    import numpy as np

    for tree, output in zip(told["trees"], told["tree_info"], strict=True):
        if any(tree.get("split_type", ())):
            raise Invalid("XGBoost's splits by category are not supported in a pipeline")
        left = np.array(tree["left_children"])
        numbers = np.array(tree["split_conditions"], dtype=np.float32).astype(np.float64)
        yield Tree(
            output=int(output),
            feature=np.array(tree["split_indices"]),
            threshold=numbers,
            left=left,
            right=np.array(tree["right_children"]),
            is_leaf=left < 0,
            null_left=np.array(tree["default_left"]),
            value=numbers,  # a leaf has its value where others have their threshold
            sets={},
        )
