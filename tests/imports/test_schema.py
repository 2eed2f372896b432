"""What an ``MLmodel`` file says, read without MLflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from relevo.errors import Invalid
from relevo.imports.schema import columns_of, describe
from relevo.runtimes.model import Column, ColumnType


def signature(*inputs: dict[str, Any]) -> dict[str, Any]:
    return {"inputs": json.dumps(inputs), "outputs": None, "params": None}


def test_columns_keep_their_order_and_the_type_of_mlflows_frame() -> None:
    kinds = ("double", "float", "long", "integer", "boolean", "string", "datetime")
    columns = columns_of(signature(*({"name": kind, "type": kind, "required": True} for kind in kinds)))
    assert columns == (
        Column("double", ColumnType.FLOAT, dtype="float64"),
        Column("float", ColumnType.FLOAT, dtype="float32"),
        Column("long", ColumnType.INTEGER, nullable=False, dtype="int64"),
        Column("integer", ColumnType.INTEGER, nullable=False, dtype="int32"),
        Column("boolean", ColumnType.BOOLEAN, nullable=False, dtype="bool"),
        Column("string", ColumnType.TEXT, dtype="str"),
        Column("datetime", ColumnType.TIME, dtype="datetime64[ns]"),
    )


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (None, "no signature"),
        ({"inputs": None, "outputs": "[]"}, "no signature"),
        (signature({"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 3]}}), "got a tensor"),
        (signature({"type": "double"}), "column 0 without a name"),
        (signature({"type": "binary", "name": "photo"}), "'photo' has type binary"),
        (signature({"type": "array", "name": "tags", "items": {"type": "string"}}), "'tags' has type array"),
    ],
)
def test_a_signature_that_no_request_fits_is_refused_with_how_to_log_one(said: Any, message: str) -> None:
    with pytest.raises(Invalid, match=message) as refused:
        columns_of(said)
    assert "log it again" in (refused.value.hint or "").lower()


def test_a_model_without_a_python_flavor_or_without_its_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="no MLmodel"):
        describe(tmp_path)
    (tmp_path / "MLmodel").write_text(yaml.safe_dump({"flavors": {"spark": {}}}))
    with pytest.raises(Invalid, match="no flavor python_function"):
        describe(tmp_path)
    (tmp_path / "MLmodel").write_text("a: [")
    with pytest.raises(Invalid, match="cannot be read"):
        describe(tmp_path)
