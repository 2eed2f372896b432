"""One small data set with text, nulls and an epoch: what the tests of the runtimes fit their models on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from relevo.contract.model import Task
from relevo.runtimes.frames import as_frame, categories_of
from relevo.runtimes.model import Column, ColumnType, Signature

COLUMNS = (
    Column("carrier", ColumnType.TEXT),
    Column("origin", ColumnType.TEXT),
    Column("distance", ColumnType.FLOAT),
    Column("hour", ColumnType.INTEGER),
    Column("departs_at_s", ColumnType.FLOAT),
    Column("is_weekend", ColumnType.BOOLEAN),
)
NUMERIC = COLUMNS[2:5]


def signature(classes: int, columns: tuple[Column, ...] = COLUMNS) -> Signature:
    task = Task.CLASSIFICATION if classes else Task.REGRESSION
    return Signature(task, columns, classes=tuple(str(k) for k in range(classes)))


def _rows(n: int = 400, seed: int = 7, nulls: bool = True) -> list[list[Any]]:
    """Rows with text, nulls and an epoch-like column."""
    draw = np.random.default_rng(seed)
    made: list[list[Any]] = []
    for _ in range(n):
        row = [
            str(draw.choice(["UA", "AA", "DL", "B6"])),
            str(draw.choice(["JFK", "LGA", "EWR"])),
            float(draw.normal(1000, 300)),
            int(draw.integers(0, 24)),
            1_364_774_400.0 + float(draw.uniform(0, 2.6e7)),
            bool(draw.random() < 0.3),
        ]
        made.append([None if nulls and draw.random() < 0.05 else value for value in row])
    return made


def _training(
    classes: int, *, columns: tuple[Column, ...] = COLUMNS, nulls: bool = True
) -> tuple[Signature, pd.DataFrame, np.ndarray]:
    """A signature, its training frame and labels that depend on text, numbers and nulls."""
    described = signature(classes, columns)
    places = [COLUMNS.index(column) for column in columns]
    every = _rows(nulls=nulls)
    values = [[row[i] for i in places] for row in every]
    categories = categories_of({column.name: [row[i] for row in values] for i, column in enumerate(columns)}, described)
    draw = np.random.default_rng(3)
    score = np.array(
        [
            (row[0] == "UA") * 1.5
            + (row[2] or 0) / 600
            + (row[3] or 12) / 10
            - (row[1] is None)
            + ((row[4] or 1.37e9) - 1.37e9) / 1e7
            for row in every
        ]
    ) + draw.normal(0, 0.5, len(every))
    frame = as_frame(values, described, categories)
    if not classes:
        return described, frame, score
    edges = np.quantile(score, np.linspace(0, 1, classes + 1)[1:-1])
    return described, frame, np.digitize(score, edges)


Training = Callable[..., tuple[Signature, pd.DataFrame, np.ndarray]]


@pytest.fixture
def training() -> Training:
    """``training(classes, columns=..., nulls=...)`` gives signature, frame and labels; 0 classes: a regression."""
    return _training


@pytest.fixture
def numeric() -> tuple[Column, ...]:
    """The columns that are plain numbers."""
    return NUMERIC


@pytest.fixture
def text() -> tuple[Column, ...]:
    """The columns that are text."""
    return COLUMNS[:2]
