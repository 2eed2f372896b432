"""The slow, obvious comparison of two tables: lists of dictionaries, one cell after the other."""

from __future__ import annotations

from collections import Counter
from typing import Any

import polars as pl

Row = dict[str, Any]


def named(before: pl.DataFrame, after: pl.DataFrame, names: list[str]) -> dict[str, Any]:
    """Rows added, removed and changed, and changed cells by column, where ``names`` tell the rows."""
    old = {tuple(row[name] for name in names): row for row in before.to_dicts()}
    new = {tuple(row[name] for name in names): row for row in after.to_dicts()}
    shared = [name for name, kind in after.schema.items() if before.schema.get(name) == kind and name not in names]
    cells = {
        name: [key for key in old if key in new and not _is_same(old[key][name], new[key][name])] for name in shared
    }
    return {
        "added": len([key for key in new if key not in old]),
        "removed": len([key for key in old if key not in new]),
        "changed": len({key for keys in cells.values() for key in keys}),
        "cells": {name: len(keys) for name, keys in cells.items()},
    }


def whole(before: pl.DataFrame, after: pl.DataFrame) -> dict[str, int]:
    """Rows added and removed, each as often as it stands there."""
    shared = [name for name, kind in after.schema.items() if before.schema.get(name) == kind]
    old, new = (Counter(repr([row[name] for name in shared]) for row in frame.to_dicts()) for frame in (before, after))
    return {"added": (new - old).total(), "removed": (old - new).total()}


def summary(values: list[Any]) -> dict[str, Any]:
    """Null rate, mean, bounds and number of different values of a list without NaN."""
    known = [value for value in values if value is not None]
    numbers = [value for value in known if not isinstance(value, str | bool)]
    return {
        "null_rate": (len(values) - len(known)) / len(values) if values else 0.0,
        "mean": sum(numbers) / len(numbers) if numbers else None,
        "minimum": min(numbers, default=None),
        "maximum": max(numbers, default=None),
        "distinct": len(set(known)),
    }


def _is_same(left: Any, right: Any) -> bool:
    return bool(left == right) or (left != left and right != right)
