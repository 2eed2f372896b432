"""A signature as JSON Schema (draft 2020-12): every body that a request may have, in MLflow's four forms.

The schema says what the decoders take, with three rules that JSON Schema has no words for, and that stand in the
descriptions: columns of ``dataframe_split`` may come in any order; columns of ``inputs`` are of one length; nothing is
asked at a time that is not there yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from relevo.runtimes.model import Column, ColumnType, Signature
from relevo.runtimes.requests import EXPECTED, MAX_REQUEST_ID, Layout

Schema = dict[str, Any]

_VALUES: Mapping[ColumnType, Schema] = {
    ColumnType.FLOAT: {"type": "number", "format": "double"},
    ColumnType.INTEGER: {"type": "integer", "format": "int64", "minimum": -(2**63), "maximum": 2**63 - 1},
    ColumnType.TEXT: {"type": "string"},
    ColumnType.BOOLEAN: {"type": "boolean"},
    ColumnType.TIME: {"type": "string", "format": "date-time"},
}
_EXAMPLES: Mapping[ColumnType, object] = {
    ColumnType.FLOAT: 1.5,
    ColumnType.INTEGER: 1,
    ColumnType.TEXT: "a",
    ColumnType.BOOLEAN: True,
    ColumnType.TIME: "2001-01-01T00:00:00Z",
}
_REQUEST_ID: Schema = {
    "type": ["string", "null"],
    "minLength": 1,
    "maxLength": MAX_REQUEST_ID,
    "description": "The caller's own id of the request, kept in the log beside each of its rows.",
}


class RequestSchemas:
    """The schemas of one signature's requests.

    Args:
        signature: Whose.
        components: Where the document keeps its schemas, such as ``#/components/schemas``.
    """

    def __init__(self, signature: Signature, components: str) -> None:
        self._components = components
        self._layout = Layout.of(signature)
        self._inputs = signature.inputs
        columns = self._layout.columns
        self._required = [column.name for column in signature.inputs if column.is_asked]
        self._optional = [name for name in columns if name not in self._required]
        self._looked_up = [column.name for column in signature.inputs if column.view is not None]
        self._keys = [key.name for key in signature.keys]

    def shared(self) -> dict[str, Schema]:
        """What the forms refer to: a record, and a row of values in the signature's order."""
        return {"Record": self._record(), "Row": self._row(self._inputs)}

    def request(self, max_rows: int) -> Schema:
        """The body of a request of at most so many rows: one of the four forms."""
        forms = {
            "dataframe_split": {"anyOf": [self._split(names, max_rows) for names in self._orders()]},
            "dataframe_records": self._records(max_rows),
            "instances": {"anyOf": self._instances(max_rows)},
            "inputs": {"anyOf": [self._columns(max_rows), *self._instances(max_rows)]},
        }
        return {"oneOf": [_form(name, schema) for name, schema in forms.items()]}

    def example(self) -> Schema:
        """A request of one row with what is required."""
        names = self._short()
        row = [_EXAMPLES[self._layout.columns[name].type] for name in names]
        return {"dataframe_split": {"columns": names, "data": [row]}}

    def _short(self) -> list[str]:
        """The fewest columns that a request can have."""
        return [*self._required, *(key for key in self._keys if self._looked_up)]

    def _orders(self) -> list[list[str]]:
        every = list(self._layout.columns)
        short = self._short()
        return [every] if short == every else [every, short]

    def _split(self, names: Sequence[str], max_rows: int) -> Schema:
        columns = [self._layout.columns[name] for name in names]
        described = {
            "type": "array",
            "prefixItems": [{"const": name} for name in names],
            "items": False,
            "minItems": len(names),
            "description": "In any order, and without any of the optional ones; each row of the data follows it.",
        }
        return {
            "type": "object",
            "properties": {
                "columns": described,
                "data": {"type": "array", "items": self._row(columns), "minItems": 1, "maxItems": max_rows},
                "index": {"description": "Not looked at; pandas writes one."},
            },
            "required": ["columns", "data"],
            "additionalProperties": False,
        }

    def _row(self, columns: Sequence[Column]) -> Schema:
        return {
            "type": "array",
            "prefixItems": [value(column) for column in columns],
            "items": False,
            "minItems": len(columns),
        }

    def _record(self) -> Schema:
        return {
            "type": "object",
            "properties": {name: self._described(column) for name, column in self._layout.columns.items()},
            "required": self._required,
            "additionalProperties": False,
            **self._keys_of_views(),
        }

    def _keys_of_views(self) -> Schema:
        """What a view fills may be left out, and then the keys that find it may not."""
        if not (self._looked_up and self._keys):
            return {}
        return {"anyOf": [{"required": self._keys}, {"required": self._looked_up}]}

    def _described(self, column: Column) -> Schema:
        by = f"the feature view {column.view}" if column.view else "a transform" if column.is_computed else None
        sentences = [f"{EXPECTED[column.type].capitalize()}."]
        if by:
            sentences.append(f"Left out, {by} fills it.")
        if column.name in self._keys:
            sentences.append("It finds the features that the request leaves out.")
        if column.name == self._layout.signature.at:
            sentences.append("The time asked at, not ahead of the event clock; null or left out, it is the clock now.")
        return {**value(column), "description": " ".join(sentences)}

    def _records(self, max_rows: int) -> Schema:
        """Records, which all have the same of the optional columns."""
        schema: Schema = {
            "type": "array",
            "items": {"$ref": f"{self._components}/Record"},
            "minItems": 1,
            "maxItems": max_rows,
        }
        if self._optional:
            schema["allOf"] = [
                {"anyOf": [{"items": {"required": [name]}}, {"items": {"properties": {name: False}}}]}
                for name in self._optional
            ]
        return schema

    def _instances(self, max_rows: int) -> list[Schema]:
        row: Schema = {"$ref": f"{self._components}/Row"}
        if len(self._inputs) == 1:
            row = {"anyOf": [row, value(self._inputs[0])]}
        return [self._records(max_rows), {"type": "array", "items": row, "minItems": 1, "maxItems": max_rows}]

    def _columns(self, max_rows: int) -> Schema:
        properties = {}
        for name, column in self._layout.columns.items():
            alone = value(column)
            wrapped = {"type": "array", "prefixItems": [alone], "items": False, "minItems": 1}
            items = {"anyOf": [alone, wrapped]}
            properties[name] = {"type": "array", "items": items, "minItems": 1, "maxItems": max_rows}
        return {
            "type": "object",
            "properties": properties,
            "required": self._required,
            "additionalProperties": False,
            "description": "Whole columns, all of one length.",
            **self._keys_of_views(),
        }


def value(column: Column) -> Schema:
    """What a value of the column may be.

    >>> value(Column("distance", ColumnType.TEXT))
    {'type': ['string', 'null']}
    """
    schema = dict(_VALUES[column.type])
    if column.nullable:
        schema["type"] = [schema["type"], "null"]
    return schema


def _form(name: str, schema: Schema) -> Schema:
    return {
        "type": "object",
        "title": name,
        "properties": {name: schema, "request_id": _REQUEST_ID},
        "required": [name],
        "additionalProperties": False,
    }
