"""From the original model to a graph of ONNX, in float64 or in float32. Runs in the training child only.

In float64 trees and linear models are written by us, exactly as their library computes them, behind a preparation that
skl2onnx converts; other models are skl2onnx's whole. In float32 everything is skl2onnx's. Whatever comes out is only a
candidate: agreement decides.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import msgspec

from relevo.contract.model import Task
from relevo.errors import Invalid
from relevo.runtimes import original
from relevo.runtimes.forests import forest_of
from relevo.runtimes.frames import as_frame
from relevo.runtimes.linearise import final_layer
from relevo.runtimes.model import Categories, ColumnType, Signature
from relevo.runtimes.onnx import ANSWERS, LIMITS, NULL_TEXT, NUMBERS, TEXTS, Limits
from relevo.runtimes.onnx_graph import OPSETS_SINGLE, Graph, add_codes, add_forest, add_linear

if TYPE_CHECKING:
    import pandas as pd

_VERSION = 10  # of the file format
_ROOT = "sklearn."


def convert(model: Any, signature: Signature, categories: Categories, *, is_single: bool) -> bytes:
    """The graph's file.

    Args:
        model: The fitted model.
        signature: Its inputs and output.
        categories: The training categories of each text input.
        is_single: Whether to compute in float32.

    Raises:
        Invalid: Something of the model has no conversion.
    """
    _check_inputs(signature, categories)
    graph = Graph()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if is_single:
            answers = _whole(graph, model, signature, is_single=True)
        else:
            answers = _double(graph, model, signature, categories)
        _finish(graph, answers, signature)
        limits = find_limits(model, signature, categories)
    return _file(graph, signature, limits)


def find_limits(model: Any, signature: Signature, categories: Categories) -> Limits:
    """Which nulls and which sizes of numbers the original refuses, found by asking it about one plain row."""
    plain = [
        {ColumnType.TEXT: next(iter(categories.get(column.name, ())), None), ColumnType.BOOLEAN: False}.get(
            column.type, 0.0
        )
        for column in signature.inputs
    ]

    def answers(place: int, value: object) -> bool:
        row = [*plain[:place], value, *plain[place + 1 :]]
        try:
            original.predict(model, as_frame([row], signature, categories), signature)
        except (ValueError, TypeError, ArithmeticError, KeyError, IndexError):
            return False
        return True

    no_null, largest = [], {}
    for place, column in enumerate(signature.inputs):
        if column.nullable and not answers(place, None):
            no_null.append(column.name)
        if column.type is ColumnType.FLOAT and not answers(place, 1e300):
            largest[column.name] = 2.0 ** _last_power(lambda power, place=place: answers(place, 2.0**power))
    return Limits(tuple(no_null), largest)


def _last_power(is_answered: Any) -> int:
    """The largest power of two that is answered: beyond it a model that rounds to float32 sees infinity."""
    low, high = 0, 996  # 2 ** 996 is below 1e300
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_answered(middle) else (low, middle)
    return low


def _check_inputs(signature: Signature, categories: Categories) -> None:
    for column in signature.inputs:
        if column.type is ColumnType.TIME:
            raise Invalid(f"column {column.name!r}: a graph of ONNX takes no times")
        if column.type is ColumnType.TEXT and NULL_TEXT in categories.get(column.name, ()):
            raise Invalid(f"column {column.name!r} has the category {NULL_TEXT!r}, which stands for null")


def _double(graph: Graph, model: Any, signature: Signature, categories: Categories) -> str:
    prepare, final = _parts(model)
    forest = forest_of(final)
    if forest is not None:
        if prepare is None:
            features = _plain_features(graph, final, signature, categories)
        else:
            features = _converted(graph, prepare, signature, is_single=False)[0]
            if forest.zero_is_null and _is_sparse(prepare, signature, categories):
                is_zero = graph.add("Equal", features, graph.constant(0.0))
                features = graph.add("Where", is_zero, graph.constant(float("nan")), features)
        return graph.linked(add_forest(graph, features, forest), forest.link)
    try:
        link, coefficients, intercept = final_layer(final, signature)
    except Invalid:
        return _whole(graph, model, signature, is_single=False)
    features = graph.cast(NUMBERS, "DOUBLE")
    if prepare is not None:
        features = _converted(graph, prepare, signature, is_single=False)[0]
    return graph.linked(add_linear(graph, features, coefficients, intercept), link.value)


def _parts(model: Any) -> tuple[Any, Any]:
    """What prepares, None when there is nothing, and the estimator."""
    while _is_pipeline(model) and len(model.steps) == 1:
        model = model.steps[0][1]
    if not _is_pipeline(model):
        return None, model
    return model[:-1], model.steps[-1][1]


def _is_pipeline(model: Any) -> bool:
    return type(model).__name__ == "Pipeline" and type(model).__module__.startswith(_ROOT)


def _plain_features(graph: Graph, final: Any, signature: Signature, categories: Categories) -> str:
    """The features of an estimator without preparation: the numbers, and codes where it encodes text by itself."""
    if all(column.type is not ColumnType.TEXT for column in signature.inputs):
        encoder = getattr(final, "_preprocessor", None)
        if encoder is not None:
            raise Invalid("categories that are numbers are not supported")
        return NUMBERS
    encoder = getattr(final, "_preprocessor", None)
    if encoder is None or not type(final).__name__.startswith("HistGradientBoosting"):
        raise Invalid(f"{type(final).__name__} that encodes text by itself is not supported")
    numbers, texts = _columns(graph, signature)
    flags = list(final.is_categorical_)
    if flags != [column.type is ColumnType.TEXT for column in signature.inputs]:
        raise Invalid("categories that are numbers are not supported")
    # It puts what is categorical first.
    coded = [add_codes(graph, texts[name], categories[name]) for name in texts]
    return str(graph.add("Concat", *coded, *numbers.values(), axis=1))


def _columns(graph: Graph, signature: Signature) -> tuple[dict[str, str], dict[str, str]]:
    """Each input as a column ``(n_rows, 1)``: names in the graph by name in the signature, of numbers and of texts."""
    found = []
    for whole, is_text in ((NUMBERS, False), (TEXTS, True)):
        names = [column.name for column in signature.inputs if (column.type is ColumnType.TEXT) is is_text]
        if len(names) > 1:
            parts = graph.add("Split", whole, outputs=len(names), axis=1, num_outputs=len(names))
        else:
            parts = [whole] * len(names)
        found.append(dict(zip(names, parts, strict=True)))
    return found[0], found[1]


def _whole(graph: Graph, model: Any, signature: Signature, *, is_single: bool) -> str:
    graph.opsets = OPSETS_SINGLE
    outputs = _converted(graph, model, signature, is_single=is_single)
    if signature.task is Task.REGRESSION:
        return outputs[0]
    if len(outputs) != 2:
        raise Invalid(f"{type(model).__name__} gives no probabilities in ONNX")
    return outputs[1]


def _converted(graph: Graph, model: Any, signature: Signature, *, is_single: bool) -> list[str]:
    """What skl2onnx makes of a part of the model, put into the graph; the names of its outputs."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
    from sklearn.impute import SimpleImputer

    kind = FloatTensorType if is_single else DoubleTensorType
    by_column = _selects_columns(model)
    if by_column:
        types = [
            (column.name, (StringTensorType if column.type is ColumnType.TEXT else kind)([None, 1]))
            for column in signature.inputs
        ]
    elif any(column.type is ColumnType.TEXT for column in signature.inputs):
        raise Invalid(f"{type(model).__name__} that sees text and numbers together is not supported")
    else:
        types = [(NUMBERS, kind([None, len(signature.inputs)]))]
    final = model.steps[-1][1] if _is_pipeline(model) else model
    made = convert_sklearn(
        model,
        initial_types=types,
        target_opset=graph.opsets,
        options={id(final): {"zipmap": False}} if hasattr(final, "predict_proba") else None,
        custom_conversion_functions={} if is_single else {SimpleImputer: _convert_imputer},
        custom_shape_calculators={} if is_single else {SimpleImputer: _shape_imputer},
    ).graph
    _connect(graph, made, signature, by_column=by_column, is_single=is_single)
    outputs = [str(output.name) for output in made.output]
    return [graph.cast(outputs[0], "DOUBLE")] if len(outputs) == 1 else outputs


def _selects_columns(model: Any) -> bool:
    while _is_pipeline(model):
        model = model.steps[0][1]
    return type(model).__name__ == "ColumnTransformer"


def _connect(graph: Graph, made: Any, signature: Signature, *, by_column: bool, is_single: bool) -> None:
    """Leads our inputs to those of a graph that was converted, which is put behind them."""
    from onnx import helper

    numbers, texts = _columns(graph, signature) if by_column else ({NUMBERS: NUMBERS}, {})
    renamed = {}
    for name, ours in {**numbers, **texts}.items():
        value = graph.cast(ours, "FLOAT") if is_single and name in numbers else ours
        renamed[name] = f"{name}:input"
        graph.nodes.append(helper.make_node("Identity", [value], [renamed[name]]))
    for node in made.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    graph.nodes += list(made.node)
    graph.constants += list(made.initializer)


def _is_sparse(prepare: Any, signature: Signature, categories: Categories) -> bool:
    row: list[object] = [None] * len(signature.inputs)
    frame: pd.DataFrame = as_frame([row], signature, categories)
    return hasattr(prepare.transform(frame), "toarray")


def _shape_imputer(operator: Any) -> None:
    given = operator.inputs[0].type
    operator.outputs[0].type = type(given)([None, len(operator.raw_operator.statistics_)])


def _convert_imputer(scope: Any, operator: Any, container: Any) -> None:
    """ONNX's own imputer has no float64."""
    import numpy as np
    from onnx import numpy_helper

    imputer, given = operator.raw_operator, operator.inputs[0]
    is_text = type(given.type).__name__ == "StringTensorType"
    fills = list(imputer.statistics_)
    if imputer.add_indicator or imputer.missing_values == imputer.missing_values:  # only NaN differs from itself
        raise Invalid("SimpleImputer with add_indicator or other missing_values is not supported")
    if any(fill != fill for fill in fills):
        raise Invalid("SimpleImputer that drops a column is not supported")

    def constant(values: Any) -> str:
        name = scope.get_unique_variable_name("fill")
        array = np.asarray([values], dtype=object if is_text else np.float64)
        container.initializers.append(numpy_helper.from_array(array, name))
        return str(name)

    missing = scope.get_unique_variable_name("is_missing")
    if is_text:
        container.add_node("Equal", [given.full_name, constant([NULL_TEXT])], missing, op_version=19)
    else:
        container.add_node("IsNaN", [given.full_name], missing, op_version=13)
    container.add_node(
        "Where", [missing, constant(fills), given.full_name], operator.outputs[0].full_name, op_version=16
    )


def _finish(graph: Graph, answers: str, signature: Signature) -> None:
    """Answers in the shape of the signature, in float64."""
    import numpy as np
    from onnx import helper

    answers = graph.cast(answers, "DOUBLE")
    if len(signature.classes) > 2:
        graph.nodes.append(helper.make_node("Identity", [answers], [ANSWERS]))
        return
    # Of one output or two, the last: a regression's only one, or the probability of the second class.
    width = graph.add("Reshape", answers, graph.constant([0, -1], np.int64))
    last = graph.constant(-1, np.int64)
    graph.nodes.append(helper.make_node("Gather", [width, last], [ANSWERS], axis=1))


def _file(graph: Graph, signature: Signature, limits: Limits) -> bytes:
    from onnx import TensorProto, helper

    texts = sum(column.type is ColumnType.TEXT for column in signature.inputs)
    inputs = [
        helper.make_tensor_value_info(name, kind, [None, width])
        for name, kind, width in (
            (NUMBERS, TensorProto.DOUBLE, len(signature.inputs) - texts),
            (TEXTS, TensorProto.STRING, texts),
        )
        if width
    ]
    n_classes = len(signature.classes)
    shape = [None, n_classes] if n_classes > 2 else [None]
    output = helper.make_tensor_value_info(ANSWERS, TensorProto.DOUBLE, shape)
    made = helper.make_graph(graph.nodes, "relevo", inputs, [output], graph.constants)
    versions = [helper.make_opsetid(domain, version) for domain, version in graph.opsets.items()]
    file = helper.make_model(made, opset_imports=versions, ir_version=_VERSION)
    helper.set_model_props(file, {LIMITS: msgspec.json.encode(limits).decode()})
    return bytes(file.SerializeToString())
