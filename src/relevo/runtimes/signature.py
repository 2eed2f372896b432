"""The signature of a model, derived from what its contract, its feature views and its training frame say."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from relevo.contract.model import Contract, Task
from relevo.errors import Invalid
from relevo.features.expressions import Transform
from relevo.features.model import FeatureView
from relevo.runtimes.model import Column, ColumnType, Signature

_TYPES = (
    (re.compile(r"^(Float\d+|Decimal\b.*|Null)$"), ColumnType.FLOAT),
    (re.compile(r"^U?Int\d+$"), ColumnType.INTEGER),
    (re.compile(r"^(String|Utf8|Categorical\b.*|Enum\b.*)$", re.DOTALL), ColumnType.TEXT),
    (re.compile(r"^Boolean$"), ColumnType.BOOLEAN),
    (re.compile(r"^Datetime\(.*time_zone='.*$"), ColumnType.TIME),
)


def derive_signature(
    contract: Contract,
    views: Sequence[FeatureView],
    dtypes: Mapping[str, str],
    classes: Sequence[str] = (),
    transforms: Sequence[Transform] = (),
) -> Signature:
    """The signature: the contract's inputs, then the features of the views, then the transforms, in their order.

    Args:
        contract: Gives the inputs and the asked time.
        views: Their features are inputs that the gateway looks up when the caller does not send them.
        dtypes: Polars type names of the training frame's columns; ``str(dtype)``.
        classes: Labels of a classifier, in the order of the model's probabilities.
        transforms: They are inputs that the gateway computes when the caller does not send them.

    Raises:
        Invalid: A column is named twice, is not in the training frame, or has a type that no request can carry.
    """
    if contract.task is Task.CLASSIFICATION and len(classes) < 2:
        raise Invalid(f"A classifier needs at least two classes in its training set, got {list(classes)}.")
    inputs = [Column(name, _type(name, dtypes)) for name in contract.ask.inputs]
    for view in views:
        inputs += [Column(feature.name, _type(feature.name, dtypes), view=view.name) for feature in view.features]
    inputs += [Column(each.name, _type(each.name, dtypes), is_computed=True) for each in transforms]
    names = [column.name for column in inputs]
    for name in names:
        if names.count(name) > 1:
            raise Invalid(f"Input {name!r} is named twice; give one of them another name.", field=name)
    at = contract.ask.at
    keys = {name for view in views for name in view.entity.key} - {*names, at}
    return Signature(
        task=contract.task,
        inputs=tuple(inputs),
        keys=tuple(Column(name, _type(name, dtypes)) for name in sorted(keys)),
        at=at,
        classes=tuple(classes) if contract.task is Task.CLASSIFICATION else (),
    )


def _type(name: str, dtypes: Mapping[str, str]) -> ColumnType:
    if name not in dtypes:
        raise Invalid(f"Input {name!r} is not in the training frame, which has: {', '.join(dtypes)}.", field=name)
    for pattern, kind in _TYPES:
        if pattern.match(dtypes[name]):
            return kind
    expected = "numbers, text, booleans, or times with a zone"
    raise Invalid(f"Input {name!r} has type {dtypes[name]}; expected {expected}.", field=name)
