"""Figures of a benchmark in a page of the docs, between its marks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from report import Goal

DOCS = Path(__file__).parents[1] / "docs" / "benchmarks"

Row = dict[str, Any]
#: Of each figure its heading and its format.
Columns = dict[str, tuple[str, str]]


def fill(page: Path, blocks: Mapping[str, str]) -> None:
    """Put each block between the marks of its name; what else the page says stays."""
    text = page.read_text()
    for name, block in blocks.items():
        mark = re.compile(rf"(<!-- figures: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not mark.search(text):
            raise ValueError(f"{page} has no place for the figures {name!r}")
        text = mark.sub(lambda found, block=block: f"{found[1]}{block}\n{found[2]}", text)  # type: ignore[misc]
    page.write_text(text)
    print(f"written to {page.relative_to(DOCS.parents[1])}")


def markdown(rows: Sequence[Row], columns: Columns) -> str:
    """Rows as a table, without the columns that are empty."""
    shown = {name: head for name, head in columns.items() if any(row[name] is not None for row in rows)}
    lines = ["| " + " | ".join(heading for heading, _ in shown.values()) + " |"]
    lines.append("| " + " | ".join("---" if _is_text(rows, name) else "---:" for name in shown) + " |")
    for row in rows:
        cells = ("" if row[name] is None else format(row[name], kind) for name, (_, kind) in shown.items())
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _is_text(rows: Sequence[Row], name: str) -> bool:
    return any(isinstance(row[name], str) for row in rows)


def goals_table(goals: Sequence[Goal]) -> str:
    """Goals as a table."""
    lines = ["| goal | target | measured | met |", "| --- | ---: | ---: | --- |"]
    lines += [
        f"| {one.goal} | {'at least' if one.at_least else 'at most'} {one.target:g} | {one.measured:.3g} "
        f"| {'yes' if one.met else 'no'} |"
        for one in goals
    ]
    return "\n".join(lines)
