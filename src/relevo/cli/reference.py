"""Writes the reference of the command line, ``docs/reference/cli.md``, from the commands themselves.

``python -m relevo.cli.reference > docs/reference/cli.md``; a test holds that nobody forgets.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import typer

from relevo.cli.app import app

_HEAD = """# Commands

This page is written from the commands: `python -m relevo.cli.reference > docs/reference/cli.md`.

Commands find address and token as [settings](settings.md) say. They print for people; `--json` prints for scripts, and
into a pipe no line is broken. An error is one message on standard error, and the exit status says its kind:
[errors](errors.md). 2 also stands for wrong arguments, 130 for Ctrl-C. `relevo up` and a command that follows a release
can be left with Ctrl-C; the release goes on.
"""


def reference() -> str:
    """The page."""
    return "\n".join([_HEAD, *_sections(typer.main.get_command(app), "relevo")])


def _sections(group: Any, path: str) -> Iterator[str]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _sections(command, f"{path} {name}")
        else:
            yield _section(command, f"{path} {name}")


def _section(command: Any, path: str) -> str:
    context = command.context_class(command, info_name=path)
    shown = [(one, one.get_help_record(context)) for one in command.params]
    arguments = [one for one, _ in shown if one.param_type_name == "argument"]
    usage = " ".join([path, *(_placeholder(one) for one in arguments), "[OPTIONS]"])
    rows = [f"| `{one.name.upper()}` | {one.help} |" for one in arguments]
    rows += [_row(*record) for one, record in shown if one.param_type_name == "option" and record]
    table = ["| argument | meaning |", "| --- | --- |", *rows, ""] if rows else []
    return "\n".join([f"## {path}", "", f"`{usage}`", "", " ".join(command.help.split()), "", *table])


def _row(names: str, meaning: str) -> str:
    cells = (" ".join(cell.split()).replace("|", "\\|") for cell in (f"`{names}`", meaning))
    return f"| {' | '.join(cells)} |"


def _placeholder(argument: Any) -> str:
    name = argument.name.upper() + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


if __name__ == "__main__":
    sys.stdout.write(reference())
