"""Reads ``MLmodel``: flavor and signature. Nothing is loaded, and MLflow is not imported."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from relevo.errors import Invalid
from relevo.imports.model import Described
from relevo.runtimes.model import Column, ColumnType, FrameType

FILE = "MLmodel"
_HOW = (
    "Log it again with signature=mlflow.models.infer_signature(frame, predictions), where frame is a pandas DataFrame "
    "with a name for each column."
)
#: MLflow's names of column types.
_TYPES: dict[str, tuple[ColumnType, FrameType]] = {
    "boolean": (ColumnType.BOOLEAN, "bool"),
    "integer": (ColumnType.INTEGER, "int32"),
    "long": (ColumnType.INTEGER, "int64"),
    "float": (ColumnType.FLOAT, "float32"),
    "double": (ColumnType.FLOAT, "float64"),
    "string": (ColumnType.TEXT, "str"),
    "datetime": (ColumnType.TIME, "datetime64[ns]"),
}
#: Their columns have no place for a null in MLflow either.
_NEVER_NULL = (ColumnType.INTEGER, ColumnType.BOOLEAN)


def describe(folder: Path) -> Described:
    """What the model folder says.

    Raises:
        Invalid: It is no model folder, or its signature is not one of named columns that requests can carry.
    """
    try:
        said = yaml.safe_load((folder / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Invalid(f"There is no {FILE} among the model's files, so MLflow did not write them.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Invalid(f"{FILE} cannot be read: {str(error).splitlines()[0]}") from None
    flavors = said.get("flavors") if isinstance(said, dict) else None
    if not isinstance(flavors, dict) or "python_function" not in flavors:
        raise Invalid("The model has no flavor python_function, so Python cannot ask it.", hint="Log it by MLflow.")
    function = flavors["python_function"]
    named = [name for name in flavors if name != "python_function"]
    example = said.get("saved_input_example_info") or {}
    return Described(
        flavor=named[0] if named else "python_function",
        columns=columns_of(said.get("signature")),
        python_version=str(function.get("python_version", "")),
        mlflow_version=str(said.get("mlflow_version", "")),
        logged_at=datetime.fromisoformat(str(said["utc_time_created"])).replace(tzinfo=UTC),
        is_python_code=function.get("loader_module") == "mlflow.pyfunc.model",
        example=str(example["artifact_path"]) if example.get("type") == "dataframe" else None,
    )


def columns_of(signature: Mapping[str, Any] | None) -> tuple[Column, ...]:
    """The inputs of a signature as ``MLmodel`` states it.

    Raises:
        Invalid: It has none, or one that is no list of named columns of plain types.
    """
    inputs = json.loads(signature["inputs"]) if signature and signature.get("inputs") else None
    if not inputs:
        raise Invalid("The model has no signature, so nobody knows what to send it.", field="signature", hint=_HOW)
    columns = []
    for place, each in enumerate(inputs):
        name, kind = each.get("name"), each.get("type")
        if kind == "tensor" or name is None:
            what = "a tensor" if kind == "tensor" else f"column {place} without a name"
            raise Invalid(f"Expected a signature of named columns, got {what}.", field="signature", hint=_HOW)
        if kind not in _TYPES:
            expected = ", ".join(_TYPES)
            message = f"Column {name!r} has type {kind}; a request can carry: {expected}."
            raise Invalid(message, field=name, hint="Give the model plain columns, and log it again.")
        ours, dtype = _TYPES[kind]
        columns.append(Column(str(name), ours, nullable=ours not in _NEVER_NULL, dtype=dtype))
    return tuple(columns)
