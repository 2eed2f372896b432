"""Rows to compare runtimes on, where there is no holdout: the model's example, and others made from its signature."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from relevo.errors import Invalid
from relevo.runtimes.decoders import build_decoder
from relevo.runtimes.formulas import column_of, design_of
from relevo.runtimes.model import Column, ColumnType, Signature

#: Rows that are made.
GENERATED = 300
_SEED = 7
_FIRST_DAY = datetime(2000, 1, 1, tzinfo=UTC)
_WORDS = ("a", "b", "c")


def example_rows(path: Path, signature: Signature) -> list[list[object]]:
    """The rows of MLflow's ``input_example.json`` that fit the signature."""
    try:
        example = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    if not isinstance(example, dict) or not isinstance(example.get("columns"), list):
        return []
    decode = build_decoder(signature)
    rows: list[list[object]] = []
    for data in example.get("data", ()):
        values = dict(zip(example["columns"], data, strict=False))
        record = {column.name: _requested(values.get(column.name), column) for column in signature.inputs}
        try:
            rows += map(list, decode(json.dumps({"dataframe_records": [record]}).encode()).rows)
        except Invalid:
            continue  # a row of an example may hold what no request can
    return rows


def generated_rows(
    signature: Signature, examples: Sequence[Sequence[object]], texts: Mapping[str, Sequence[str]]
) -> list[list[object]]:
    """``GENERATED`` rows that vary every input on its own, the same ones every time.

    Numbers spread around those of the examples; without any they come in every magnitude from a thousandth to a
    million, of either sign. Text is among ``texts`` (what the model itself knows) and the examples'.
    """
    draw = random.Random(_SEED)
    columns = [
        _values(column, [row[place] for row in examples if row[place] is not None], texts.get(column.name, ()), draw)
        for place, column in enumerate(signature.inputs)
    ]
    return [list(row) for row in zip(*columns, strict=True)]


def known_texts(model: Any) -> dict[str, list[str]]:
    """The categories that encoders inside a scikit-learn model or a formula of statsmodels know, by input column."""
    found = _texts_of_formula(model)
    for part in _parts(model):
        names = getattr(part, "feature_names_in_", None)
        categories = getattr(part, "categories_", None)
        if names is None or categories is None:
            continue
        for name, known in zip(names, categories, strict=False):
            found[str(name)] = [value for value in known if isinstance(value, str)]
    return found


def _texts_of_formula(model: Any) -> dict[str, list[str]]:
    """Of terms that are a column, ``depot`` or ``C(depot)``."""
    design = design_of(model)
    infos = () if design is None else design.factor_infos.values()
    return {
        column_of(info.factor): [value for value in info.categories if isinstance(value, str)]
        for info in infos
        if info.type == "categorical"
    }


def _parts(model: Any) -> Iterator[Any]:
    yield model
    steps = [step for _, step in getattr(model, "steps", ())]
    branches = [branch[1] for branch in getattr(model, "transformers_", ())]
    for part in (*steps, *branches):
        if not isinstance(part, str) and part is not None:
            yield from _parts(part)


def _values(column: Column, seen: list[Any], texts: Sequence[str], draw: random.Random) -> list[object]:
    count = range(GENERATED)
    match column.type:
        case ColumnType.TEXT:
            words = list(dict.fromkeys([*texts, *map(str, seen)])) or list(_WORDS)
            return [draw.choice(words) for _ in count]
        case ColumnType.BOOLEAN:
            return [draw.random() < 0.5 for _ in count]
        case ColumnType.TIME:
            begin = min(seen, default=_FIRST_DAY)
            return [begin + timedelta(hours=draw.randrange(24 * 365)) for _ in count]
        case ColumnType.INTEGER:
            return [round(_number(seen, draw)) for _ in count]
        case ColumnType.FLOAT:
            return [_number(seen, draw) for _ in count]


def _number(seen: list[Any], draw: random.Random) -> float:
    if not seen:
        return draw.choice((-1.0, 1.0)) * math.exp(draw.uniform(math.log(1e-3), math.log(1e6)))
    low, high = min(seen), max(seen)
    spread = (high - low) or max(1.0, abs(low))
    return float(draw.uniform(low - spread, high + spread))


def _requested(value: object, column: Column) -> object:
    """A value of the example as a request would carry it: its times are naive UTC."""
    is_naive = column.type is ColumnType.TIME and isinstance(value, str) and "+" not in value and value[-1:] != "Z"
    return f"{value}Z" if is_naive else value
