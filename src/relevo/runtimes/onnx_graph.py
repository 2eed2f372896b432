"""Small graphs of ONNX in float64: trees, linear models, and what leads from inputs to them. Training child only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from relevo.errors import Invalid
from relevo.runtimes.forests import Forest

if TYPE_CHECKING:
    import numpy as np

#: Versions of the operators: the first that has trees in float64, and the last that has those of skl2onnx.
OPSETS_DOUBLE = {"": 19, "ai.onnx.ml": 5}
OPSETS_SINGLE = {"": 19, "ai.onnx.ml": 3}
#: Nodes of trees in one graph; past them it is larger than what a file of ONNX may hold comfortably.
MAX_NODES = 5_000_000

_LESS_OR_EQUAL, _LESS, _MEMBER = 0, 1, 6


class Graph:
    """Nodes and constants that are being put together; every operation gives the name of its output."""

    def __init__(self, prefix: str = "relevo_") -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.opsets = OPSETS_DOUBLE
        self._prefix = prefix

    def add(self, operator: str, *inputs: str, domain: str = "", outputs: int = 1, **attributes: Any) -> Any:
        """The name of the operation's output, or their names where there are several."""
        from onnx import helper

        names = [f"{self._prefix}{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(operator, inputs, names, domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, values: Any, dtype: Any = None) -> str:
        """The name of a constant."""
        import numpy as np
        from onnx import numpy_helper

        name = f"{self._prefix}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype=dtype or np.float64), name))
        return name

    def cast(self, value: str, kind: str) -> str:
        """The value as FLOAT or DOUBLE."""
        from onnx import TensorProto

        return str(self.add("Cast", value, to=getattr(TensorProto, kind)))

    def linked(self, scores: str, link: str) -> str:
        """Scores ``(n_rows, n_outputs)`` after the link; one output as ``(n_rows,)``."""
        match link:
            case "logistic":
                scores = self.add("Sigmoid", scores)
            case "softmax":
                return str(self.add("Softmax", scores, axis=1))
            case "exp":
                scores = self.add("Exp", scores)
        return scores


def add_linear(graph: Graph, features: str, coefficients: np.ndarray, intercept: np.ndarray) -> str:
    """Scores ``(n_rows, n_outputs)`` of features ``(n_rows, n_features)``."""
    product = graph.add("MatMul", features, graph.constant(coefficients.T))
    return str(graph.add("Add", product, graph.constant(intercept)))


def add_forest(graph: Graph, features: str, forest: Forest) -> str:
    """Scores ``(n_rows, n_outputs)`` of features ``(n_rows, n_features)`` in float64."""
    if forest.is_narrow:
        features = graph.cast(graph.cast(features, "FLOAT"), "DOUBLE")
    added = graph.add("TreeEnsemble", features, domain="ai.onnx.ml", **_attributes(forest))
    if forest.scale != 1.0:
        added = graph.add("Mul", added, graph.constant(forest.scale))
    return str(graph.add("Add", added, graph.constant(forest.base)))


def _attributes(forest: Forest) -> dict[str, Any]:
    """The trees one after the other. Inner nodes and leaves are numbered apart."""
    import numpy as np

    if sum(len(tree.feature) for tree in forest.trees) > MAX_NODES:
        raise Invalid(f"the trees have more than {MAX_NODES:,} nodes")
    roots: list[int] = []
    columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    n_inner = n_leaves = 0
    members: list[float] = []
    for tree in forest.trees:
        inner = np.flatnonzero(~tree.is_leaf)
        roots.append(n_inner)
        number = np.where(tree.is_leaf, np.cumsum(tree.is_leaf) - 1 + n_leaves, np.cumsum(~tree.is_leaf) - 1 + n_inner)
        if len(inner) == 0:  # a tree that is a leaf alone: a question with one answer
            one = {"feature": 0, "threshold": 0.0, "mode": _LESS_OR_EQUAL, "null": 0}
            _append(columns, one | {"true": n_leaves, "false": n_leaves, "true_leaf": 1, "false_leaf": 1})
            n_inner += 1
        else:
            mode = np.full(len(inner), _LESS if forest.is_strict else _LESS_OR_EQUAL)
            if tree.sets:
                places = np.isin(inner, list(tree.sets))
                mode[places] = _MEMBER
                for node in inner[places]:
                    members += [*tree.sets[int(node)], float("nan")]
            left, right = tree.left[inner], tree.right[inner]
            columns["feature"].append(tree.feature[inner])
            columns["threshold"].append(np.where(mode == _MEMBER, 0.0, tree.threshold[inner]))
            columns["mode"].append(mode)
            columns["null"].append(np.asarray(tree.null_left)[inner].astype(int))
            columns["true"].append(number[left])
            columns["false"].append(number[right])
            columns["true_leaf"].append(tree.is_leaf[left].astype(int))
            columns["false_leaf"].append(tree.is_leaf[right].astype(int))
            n_inner += len(inner)
        leaves = np.flatnonzero(tree.is_leaf)
        columns["output"].append(np.full(len(leaves), tree.output))
        columns["value"].append(tree.value[leaves])
        n_leaves += len(leaves)
    joined = {name: np.concatenate([np.atleast_1d(part) for part in parts]) for name, parts in columns.items()}
    return _named(joined, roots, len(forest.base), members)


_COLUMNS = ("feature", "threshold", "mode", "null", "true", "false", "true_leaf", "false_leaf", "output", "value")


def _append(columns: dict[str, list[Any]], values: dict[str, Any]) -> None:
    for name, value in values.items():
        columns[name].append([value])


def _named(joined: dict[str, np.ndarray], roots: list[int], n_outputs: int, members: list[float]) -> dict[str, Any]:
    import numpy as np
    from onnx import numpy_helper

    def tensor(values: Any, dtype: Any) -> Any:
        return numpy_helper.from_array(np.asarray(values, dtype=dtype))

    def integers(name: str) -> list[int]:
        return [int(value) for value in joined[name]]

    return {
        "tree_roots": roots,
        "n_targets": n_outputs,
        "aggregate_function": 1,  # the sum
        "post_transform": 0,
        "nodes_featureids": integers("feature"),
        "nodes_splits": tensor(joined["threshold"], np.float64),
        "nodes_modes": tensor(joined["mode"], np.uint8),
        "nodes_missing_value_tracks_true": integers("null"),
        "nodes_truenodeids": integers("true"),
        "nodes_falsenodeids": integers("false"),
        "nodes_trueleafs": integers("true_leaf"),
        "nodes_falseleafs": integers("false_leaf"),
        "leaf_targetids": integers("output"),
        "leaf_weights": tensor(joined["value"], np.float64),
        **({"membership_values": tensor(members, np.float64)} if members else {}),
    }


def add_codes(graph: Graph, texts: str, known: Sequence[str]) -> str:
    """Codes ``(n_rows, 1)`` in float64 of one column of text, NaN for what is not known."""
    import numpy as np
    from onnx import numpy_helper

    return str(
        graph.add(
            "LabelEncoder",
            texts,
            domain="ai.onnx.ml",
            keys_strings=list(known),
            values_tensor=numpy_helper.from_array(np.arange(len(known), dtype=np.float64)),
            default_tensor=numpy_helper.from_array(np.array([np.nan])),
        )
    )
