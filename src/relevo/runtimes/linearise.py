"""scikit-learn's linear models and pipelines to a ``LinearModel``. Runs in the training child only.

A shape that is not known is refused: agreement on some rows is no proof for an arbitrary transformer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any

from relevo.contract.model import Task
from relevo.errors import Invalid
from relevo.runtimes.frames import as_frame
from relevo.runtimes.linear import LinearModel, Number, Table, Weights
from relevo.runtimes.model import Categories, Column, ColumnType, Link, Signature

if TYPE_CHECKING:
    import numpy as np

_REGRESSIONS = {"LinearRegression", "Ridge", "RidgeCV", "Lasso", "LassoCV", "ElasticNet", "ElasticNetCV"}
_CLASSIFIERS = {"LogisticRegression", "LogisticRegressionCV"}
_SCALERS = {"StandardScaler", "RobustScaler", "MaxAbsScaler", "MinMaxScaler"}
_TABULAR = {"OneHotEncoder", "OrdinalEncoder", "SimpleImputer"}
_PART = 256  # values asked at once: their features are dense, and may be as many as the values


@dataclass(frozen=True, slots=True)
class _Branch:
    """Steps that see some columns, and the places of what they give among the inputs of the final model."""

    steps: tuple[Any, ...]
    columns: tuple[int, ...]
    outputs: slice


def linearise(model: Any, signature: Signature, categories: Categories) -> LinearModel:
    """``model`` as a ``LinearModel``.

    Raises:
        Invalid: Says which step or setting is not supported.
    """
    steps = _steps(model)
    *prepare, final = steps
    link, coefficients, intercept = final_layer(final, signature)
    if prepare and _name(prepare[0]) == "ColumnTransformer":
        for scaler in reversed(prepare[1:]):
            center, scale = _affine(scaler, coefficients.shape[1])
            coefficients = coefficients / scale
            intercept = intercept - coefficients @ center
        branches = list(_branches(prepare[0], signature))
    else:
        whole = slice(0, coefficients.shape[1])
        branches = [_Branch(tuple(prepare), tuple(range(len(signature.inputs))), whole)]
    numbers: list[Number] = []
    tables: list[Table] = []
    for branch in branches:
        weights = coefficients[:, branch.outputs]
        if all(_name(step) in {"SimpleImputer", *_SCALERS} for step in branch.steps):
            numbers += _numbers(branch, weights, signature)
        elif all(_name(step) in _TABULAR for step in branch.steps):
            base, more = _tables(branch, weights, signature, categories)
            intercept = intercept + base
            tables += more
        else:
            raise Invalid(f"the steps {[_name(step) for step in branch.steps]} are not supported together")
    return LinearModel(link, _floats(intercept), tuple(numbers), tuple(tables))


def _name(step: Any) -> str:
    """The class name of a step of scikit-learn; the whole path of anything else, a subclass included."""
    kind = type(step)
    return kind.__name__ if kind.__module__.startswith("sklearn.") else f"{kind.__module__}.{kind.__qualname__}"


def _steps(model: Any) -> list[Any]:
    if _name(model) != "Pipeline":
        return [model]
    flat = [inner for _, step in model.steps for inner in _steps(step)]
    return [step for step in flat if not _is_identity(step)] if len(flat) > 1 else flat


def _is_identity(step: Any) -> bool:
    if isinstance(step, str) or step is None:
        return step in ("passthrough", None)
    return _name(step) == "FunctionTransformer" and step.func is None


def final_layer(final: Any, signature: Signature) -> tuple[Link, np.ndarray, np.ndarray]:
    """The link, coefficients ``(n_outputs, n_features)`` and intercept ``(n_outputs,)``.

    Raises:
        Invalid: It is no linear model that is known.
    """
    import numpy as np

    name = _name(final)
    if signature.task is Task.CLASSIFICATION and name in _CLASSIFIERS:
        link = Link.LOGISTIC if len(signature.classes) == 2 else Link.SOFTMAX
    elif signature.task is Task.REGRESSION and name in _REGRESSIONS:
        link = Link.IDENTITY
    else:
        raise Invalid(f"{name} is not a linear model that is supported for {signature.task}")
    coefficients = np.atleast_2d(np.asarray(final.coef_, dtype=np.float64))
    n_outputs = len(signature.classes) if link is Link.SOFTMAX else 1
    if coefficients.shape[0] != n_outputs:
        raise Invalid(f"{name} has {coefficients.shape[0]} outputs, expected {n_outputs}")
    intercept = np.broadcast_to(np.asarray(final.intercept_, dtype=np.float64).ravel(), (n_outputs,))
    return link, coefficients, intercept


def _branches(transformer: Any, signature: Signature) -> Iterator[_Branch]:
    names = [column.name for column in signature.inputs]
    if transformer.transformer_weights:
        raise Invalid("ColumnTransformer with transformer_weights is not supported")
    for name, step, columns in transformer.transformers_:
        outputs = transformer.output_indices_[name]
        if isinstance(step, str) and step == "drop":
            continue
        places = _places(columns, names)
        if places and outputs.stop > outputs.start:
            steps = [inner for inner in _steps(step) if not _is_identity(inner)]
            yield _Branch(tuple(steps), places, outputs)


def _places(columns: Any, names: Sequence[str]) -> tuple[int, ...]:
    if isinstance(columns, str | int):
        raise Invalid("a ColumnTransformer that selects one column as a vector is not supported")
    places: list[int] = []
    for column in columns:
        if isinstance(column, str) and column in names:
            places.append(names.index(column))
        elif isinstance(column, Integral) and not isinstance(column, bool) and 0 <= int(column) < len(names):
            places.append(int(column))
        else:
            raise Invalid(f"a ColumnTransformer that selects columns by {column!r} is not supported")
    return tuple(places)


def _numbers(branch: _Branch, weights: np.ndarray, signature: Signature) -> list[Number]:
    """Imputing, then at most one scaler: each column gives one feature."""
    import numpy as np

    n = len(branch.columns)
    if weights.shape[1] != n:
        raise Invalid("a step that drops or adds columns is not supported")
    if any(signature.inputs[i].type in (ColumnType.TEXT, ColumnType.TIME) for i in branch.columns):
        raise Invalid("a text or time column goes through a numeric step")
    names = [_name(step) for step in branch.steps]
    if len(branch.steps) > 2 or (len(names) == 2 and (names[0] != "SimpleImputer" or names[1] not in _SCALERS)):
        raise Invalid(f"the steps {names} are not supported in this order")
    fill: list[float | None] = [None] * n
    center, scale = np.zeros(n), np.ones(n)
    for step in branch.steps:
        if _name(step) == "SimpleImputer":
            fill = list(_fills(step, n))
        else:
            center, scale = _affine(step, n)
    return [
        Number(column, float(center[i]), float(scale[i]), _floats(weights[:, i]), fill[i])
        for i, column in enumerate(branch.columns)
    ]


def _fills(imputer: Any, n: int) -> Iterator[float]:
    if imputer.add_indicator or imputer.missing_values == imputer.missing_values:  # only NaN differs from itself
        raise Invalid("SimpleImputer with add_indicator or other missing_values is not supported")
    if len(imputer.statistics_) != n:
        raise Invalid("SimpleImputer saw other columns")
    yield from (float(value) for value in imputer.statistics_)


def _affine(scaler: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``center`` and ``scale`` of ``(x - center) / scale``, each ``(n,)``."""
    import numpy as np

    match _name(scaler):
        case "StandardScaler":
            center, scale = (scaler.mean_ if scaler.with_mean else None), scaler.scale_
        case "RobustScaler":
            center, scale = scaler.center_, scaler.scale_
        case "MaxAbsScaler":
            center, scale = None, scaler.scale_
        case "MinMaxScaler" if not scaler.clip:
            center, scale = -scaler.min_ / scaler.scale_, 1.0 / scaler.scale_
        case other:
            raise Invalid(f"{other} is not supported here")
    center = np.zeros(n) if center is None else np.asarray(center, dtype=np.float64)
    scale = np.ones(n) if scale is None else np.asarray(scale, dtype=np.float64)
    if center.shape != (n,) or scale.shape != (n,):
        raise Invalid(f"{_name(scaler)} saw {scale.shape} columns, expected {n}")
    return center, scale


def _tables(
    branch: _Branch, weights: np.ndarray, signature: Signature, categories: Categories
) -> tuple[np.ndarray, list[Table]]:
    """Asks the steps what each value of each column gives, all else equal: their features are functions of one column.

    The features are zeros, ones and ordinals, so that their differences are exact.
    """
    values = _known_values(branch, signature, categories)
    start: list[object] = [known[0] for known in values]
    first = _features(branch, [start], signature, categories)[0]

    def added(place: int, tried: Sequence[object]) -> list[Weights | None]:
        rows = [[*start[:place], value, *start[place + 1 :]] for value in tried]
        try:
            change = (_features(branch, rows, signature, categories) - first) @ weights.T
        except (ValueError, TypeError):  # the original refuses one of them
            return [None] if len(tried) == 1 else [found for value in tried for found in added(place, [value])]
        return [None if (row != row).any() else _floats(row) for row in change]

    tables = []
    for place, (column, known) in enumerate(zip(branch.columns, values, strict=True)):
        parts = [known[i : i + _PART] for i in range(0, len(known), _PART)]
        weighted = [found for part in parts for found in added(place, part)]
        entries = tuple((value, found) for value, found in zip(known, weighted, strict=True) if found is not None)
        missing = added(place, [None])[0]
        unknown = missing if (value := _unseen(signature.inputs[column], known)) is None else added(place, [value])[0]
        tables.append(Table(column, entries, missing, unknown))
    return weights @ first, tables


def _unseen(column: Column, known: Sequence[str | float]) -> str | float | None:
    """A value that is none of the known ones; None where such a one is null in the model's frame."""
    if column.type is not ColumnType.TEXT:
        return max(map(float, known)) + 1.5
    return None if column.dtype is None else f"{max(map(str, known))}-unseen"


def _known_values(branch: _Branch, signature: Signature, categories: Categories) -> list[list[str | float]]:
    encoder = next((step for step in reversed(branch.steps) if _name(step) != "SimpleImputer"), None)
    values: list[list[str | float]] = []
    for place, column in enumerate(branch.columns):
        described = signature.inputs[column]
        if described.type is ColumnType.TEXT:
            known: list[str | float] = list(categories.get(described.name, ()))
            if described.dtype is not None and encoder is not None:  # text stays plain, so the encoder alone knows
                known = [value for value in encoder.categories_[place] if isinstance(value, str)]
        elif described.type is ColumnType.TIME or encoder is None:
            raise Invalid(f"column {described.name!r} of type {described.type} is not supported by an encoder")
        else:
            known = [float(value) for value in encoder.categories_[place] if value is not None and value == value]
        if not known:
            raise Invalid(f"column {described.name!r} has no known value")
        values.append(known)
    return values


def _features(branch: _Branch, rows: list[list[object]], signature: Signature, categories: Categories) -> np.ndarray:
    import numpy as np

    inputs = tuple(signature.inputs[column] for column in branch.columns)
    data: Any = as_frame(rows, Signature(signature.task, inputs, classes=signature.classes), categories)
    for step in branch.steps:
        data = step.transform(data)
    return np.asarray(data.toarray() if hasattr(data, "toarray") else data, dtype=np.float64)


def _floats(values: np.ndarray) -> Weights:
    return tuple(float(value) for value in values)
