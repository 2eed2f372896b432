"""Reads the pages of the documentation: their links, code, tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")


def pages() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(text: str, language: str) -> list[str]:
    return [content for kind, content in FENCE.findall(text) if kind == language]


def without_blocks(text: str) -> str:
    return FENCE.sub("", text)


def inline_code(text: str) -> list[str]:
    return INLINE.findall(without_blocks(text))


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table whose first column is called ``heading``, without the back-quotes."""
    return next(tables(text, heading), [])


def all_rows(text: str, heading: str) -> list[list[str]]:
    """As ``rows``, of every such table on the page."""
    return [row for table in tables(text, heading) for row in table]


def tables(text: str, heading: str) -> Iterator[list[list[str]]]:
    lines = without_blocks(text).splitlines()
    for number, line in enumerate(lines):
        if line.startswith("|") and _cells(line)[0] == heading and lines[number + 1].startswith("| ---"):
            found = []
            for row in lines[number + 2 :]:
                if not row.startswith("|"):
                    break
                found.append(_cells(row))
            yield found


def _cells(line: str) -> list[str]:
    return [cell.strip().strip("`") for cell in line.strip().strip("|").split("|")]
