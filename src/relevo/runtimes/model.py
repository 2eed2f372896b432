"""The signature of a model: its input columns and its output, as requests and bundles state them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from relevo.contract.model import Task

#: Name of a bundle's file with the training categories of the text inputs, by column.
CATEGORIES_FILE = "runtime/categories.json"

#: Training categories of each text input, sorted.
Categories = Mapping[str, Sequence[str]]


class ColumnType(StrEnum):
    """Type of an input column in a request."""

    FLOAT = "float"
    INTEGER = "integer"
    TEXT = "text"
    BOOLEAN = "boolean"
    TIME = "time"


class Link(StrEnum):
    """From the sum of base and contributions to the prediction."""

    IDENTITY = "identity"
    LOGISTIC = "logistic"
    SOFTMAX = "softmax"
    EXPONENTIAL = "exponential"


#: What MLflow's schemas make of a column: integer, long, float, double, boolean, string, datetime.
FrameType = Literal["int32", "int64", "float32", "float64", "bool", "str", "datetime64[ns]"]


@dataclass(frozen=True, slots=True)
class Column:
    """An input of the model.

    ``view`` names the feature view that fills it when the caller does not send it. ``is_computed``: a request-time
    transform does so. The caller has to send all others. ``dtype`` is that of the column in the frame of a model that
    was made elsewhere, by MLflow's schema; None: the frame is that of training here, see ``frames.as_frame``.
    """

    name: str
    type: ColumnType
    nullable: bool = True
    view: str | None = None
    is_computed: bool = False
    dtype: FrameType | None = None

    @property
    def is_asked(self) -> bool:
        """Whether the caller has to send it."""
        return self.view is None and not self.is_computed


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs in the model's order, and what it gives.

    ``keys`` are request columns that only find features (not model inputs). ``at`` is the request column of the asked
    time, when there is one. ``classes`` holds the labels of a classifier; a binary one answers the probability of the
    second, any other the probabilities ``(n_rows, n_classes)``. A regression has none and answers ``(n_rows,)``.
    """

    task: Task
    inputs: tuple[Column, ...]
    keys: tuple[Column, ...] = ()
    at: str | None = None
    classes: tuple[str, ...] = ()


def timed(row: list[Any], signature: Signature) -> list[Any]:
    """A row of inputs that was kept as JSON, which has no times: they come back from text."""
    return [
        datetime.fromisoformat(value) if column.type is ColumnType.TIME and value is not None else value
        for column, value in zip(signature.inputs, row, strict=True)
    ]
