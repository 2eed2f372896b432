"""Writes new projects that run as they are: made-up orders, or a plain file."""

from __future__ import annotations

import getpass
import importlib.util
import json
import keyword
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jinja2
import yaml

from relevo.contract.model import Task
from relevo.contract.parsing import MODEL_NAME
from relevo.contract.table import MISSING, Table, inspect_table
from relevo.errors import Conflict, Invalid

_TEMPLATES = Path(__file__).parent / "templates"
_HISTORY = timedelta(days=120)


def write_project(name: str, folder: Path, *, now: datetime | None = None) -> None:
    """Write a project over made-up orders with event time and late labels, which begin 120 days before ``now``.

    Raises:
        Invalid: ``name`` is no name of a model.
        Conflict: There is something in ``folder`` already; nothing is overwritten.
    """
    first_day = (now or datetime.now(UTC)) - _HISTORY
    package = _package(name)
    _write(folder, "events", package, {**_facts(name, package, folder), "first_day": first_day})


def write_project_from_csv(name: str, csv: Path, label: str, folder: Path) -> Table:
    """Write a project that predicts the column ``label`` of a CSV file, of which the package holds a copy.

    Returns:
        What was found in the file; its notes are also in the project's README.

    Raises:
        Invalid: ``name`` is no name of a model, or the file cannot be learned from; the message says why.
        TooLarge: The file is larger than a package may be.
        Conflict: There is something in ``folder`` already; nothing is overwritten.
    """
    package = _package(name)
    _require_empty(folder)
    table = inspect_table(csv, label)
    facts = {
        **_facts(name, package, folder),
        "task": table.task.value,
        "estimator": "LGBMRegressor" if table.task is Task.REGRESSION else "LGBMClassifier",
        "is_binary": table.n_classes == 2,
        "key": table.key,
        "key_is_row": table.key_is_row,
        "label": table.label,
        "label_is_whole": table.label_is_whole,
        "inputs": table.inputs,
        "slices": table.slices,
        "columns": table.columns,
        "schema": [_schema_line(table, column) for column in table.types],
        "separator": table.separator,
        "missing": MISSING,
        "n_rows": table.n_rows,
        "notes": table.notes,
        **_tree_sizes(table),
    }
    _write(folder, "table", package, facts)
    shutil.copyfile(csv, folder / package / "data.csv")
    return table


def _tree_sizes(table: Table) -> dict[str, int]:
    """Few rows need few small trees with many rows in each leaf.

    Bigger ones were surer than they could be: on 100 to 400 noisy rows most were worse than answering the average.
    """
    n_rows = table.n_rows
    few_trees = 120 if table.task is Task.REGRESSION else 80
    return {
        "trees": 150 if n_rows >= 5_000 else few_trees,
        "leaves": 31 if n_rows >= 20_000 else 15 if n_rows >= 2_000 else 7 if n_rows >= 500 else 4,
        "leaf_rows": max(10, min(50, n_rows // 25)),
    }


def _package(name: str) -> str:
    """The package's name: the model's, unless that is a word of Python or another module's name.

    Raises:
        Invalid: ``name`` is no name of a model.
    """
    if not MODEL_NAME.fullmatch(name):
        raise Invalid(f"A model's name has small letters, digits and '-', a letter first, at most 63; got {name!r}.")
    package = name.replace("-", "_").strip("_")
    is_taken = keyword.iskeyword(package) or package in sys.stdlib_module_names or importlib.util.find_spec(package)
    return f"{package}_model" if is_taken else package


def _facts(name: str, package: str, folder: Path) -> dict[str, object]:
    try:
        owner = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        owner = "me"
    return {"name": name, "package": package, "folder": folder.resolve().name, "owner": _word(owner)}


def _schema_line(table: Table, column: str) -> dict[str, str]:
    """A column of the schema as Python; one that is called like a method of the schema needs an alias."""
    import dataframely

    is_shadowing = hasattr(dataframely.Schema, column) or column.startswith("_")
    arguments = ["primary_key=True" if column == table.key else "nullable=True"]
    arguments += [f"alias={_literal(column)}"] if is_shadowing else []
    return {
        "attribute": f"column_{column}" if is_shadowing else column,
        "type": table.types[column],
        "arguments": ", ".join(arguments),
    }


def _require_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Conflict(f"{folder} is there already, and nothing is overwritten.", hint="Choose another name or place.")


def _write(folder: Path, template: str, package: str, facts: dict[str, object]) -> None:
    _require_empty(folder)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES / template),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - writes Python, YAML and Markdown, not pages
    )
    environment.filters.update(word=_word, literal=_literal)
    for name in sorted(environment.list_templates()):
        target = name.removesuffix(".jinja")
        path = folder / package / target if target.endswith(".py") else folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(environment.get_template(name).render(facts), encoding="utf-8")


def _word(text: str) -> str:
    """Text as YAML reads it back inside a list, in quotes only where it needs them."""
    try:
        is_plain = yaml.safe_load(f"[{text}]") == [text]
    except yaml.YAMLError:
        is_plain = False
    return text if is_plain else json.dumps(text, ensure_ascii=False)


def _literal(value: str | list[str]) -> str:
    """Text, or a list of them, as Python writes it with double quotes."""
    return json.dumps(value, ensure_ascii=False)
