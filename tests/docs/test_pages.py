"""What the pages point to is there: files, names in the code, commands, targets of make."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from pages import DOCS, ROOT, blocks, inline_code, name_of, pages, without_blocks

from relevo.cli.app import app

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
NAME = re.compile(r"relevo(?:\.\w+)+")

#: Pictures that a run of the demo makes, and the page that the command line generates.

every_page = pytest.mark.parametrize("page", pages(), ids=name_of)


@every_page
def test_links_lead_to_files_that_are_there(page: Path) -> None:
    for target in LINK.findall(without_blocks(page.read_text())):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{name_of(page)} links to {target}"
        if anchor and file.suffix == ".md":
            assert anchor in _anchors(file), f"{name_of(page)} links to {target}"


@every_page
def test_names_in_the_code_are_there(page: Path) -> None:
    named = {name for code in inline_code(page.read_text()) for name in [code.removesuffix("()")] if _is_name(name)}
    for name in sorted(named):
        assert _is_in_code(name), f"{name_of(page)} names {name}"


@every_page
def test_commands_are_there_with_their_options(page: Path) -> None:
    text = page.read_text()
    lines = [line for block in blocks(text, "sh") for line in block.splitlines()]
    for line in [*lines, *inline_code(text)]:
        for part in re.split(r"\$\(|\)|&& ", line.partition("  #")[0]):
            _check_command(part.strip(), name_of(page))


@every_page
def test_targets_of_make_are_there(page: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    code = [*inline_code(page.read_text()), *blocks(page.read_text(), "sh")]
    for target in (found for text in code for found in re.findall(r"\bmake ([a-z-]+)", text)):
        assert target in targets, f"{name_of(page)} names make {target}"


def test_every_page_is_reached_from_the_readme() -> None:
    reached, left = set(), [ROOT / "README.md"]
    while left:
        page = left.pop()
        for target in LINK.findall(page.read_text()):
            file = (page.parent / target.partition("#")[0]).resolve()
            if file.suffix == ".md" and file.exists() and file not in reached:
                reached.add(file)
                left.append(file)
    assert {name_of(page) for page in DOCS.rglob("*.md")} - {name_of(page) for page in reached} == set()


def test_figures_are_pending_on_the_page_of_the_demo_alone() -> None:
    assert {name_of(page) for page in pages() if "FIGURES_PENDING" in page.read_text()} <= {"docs/benchmarks/demo.md"}


def test_the_changelog_has_the_version_of_the_project() -> None:
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert f"## [{version[1]}]" in (ROOT / "CHANGELOG.md").read_text()


def _anchors(file: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _is_name(text: str) -> bool:
    return NAME.fullmatch(text) is not None and not text.endswith((".yaml", ".lock"))


def _is_in_code(name: str) -> bool:
    """Whether a module, or a name in one, or a name in a class of one; read from the source, nothing is imported."""
    path, parts = ROOT / "src", name.split(".")
    while parts and (path / parts[0]).is_dir():
        path /= parts.pop(0)
    if parts and (path / f"{parts[0]}.py").is_file():
        body: list[ast.stmt] = ast.parse((path / f"{parts.pop(0)}.py").read_text()).body
    elif not parts:
        return True
    else:
        body = ast.parse((path / "__init__.py").read_text()).body
    for part in parts:
        found = next((statement for statement in body if part in _names(statement)), None)
        if found is None:
            return False
        body = found.body if isinstance(found, ast.ClassDef) else []
    return True


def _names(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [statement.name]
    if isinstance(statement, ast.AnnAssign):
        return [statement.target.id] if isinstance(statement.target, ast.Name) else []
    if isinstance(statement, ast.Assign):
        return [target.id for target in statement.targets if isinstance(target, ast.Name)]
    return [alias.asname or alias.name for alias in statement.names] if isinstance(statement, ast.ImportFrom) else []


def _check_command(text: str, page: str) -> None:
    match = re.match(r"(?:\w+=\S* )*relevo(?: |$)(.*)", text)
    if match is None:
        return
    words = match[1].split()
    command: Any = typer.main.get_command(app)
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        name = words.pop(0)
        assert name in command.commands, f"{page} names {text!r}, and there is no {name!r}"
        command = command.commands[name]
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for word in words:
        if word.startswith("--"):
            assert word.partition("=")[0] in options, f"{page} names {text!r}, which takes no {word}"
