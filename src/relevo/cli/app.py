"""All commands, each group in its module. What a command needs is imported when it runs."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

import relevo
from relevo.cli import (
    access,
    datasets,
    demo,
    features,
    imports,
    models,
    operations,
    projects,
    records,
    releases,
    scoring,
    training_sets,
)


class Group(TyperGroup):
    """Lists each command with its whole first line, wrapped where the terminal is narrow."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the section of commands."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, (command.help or "").partition("\n")[0]) for name, command in found if command is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"relevo {relevo.__version__}")
        raise typer.Exit


def _root(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    """Brings machine-learning models to production and keeps them healthy."""


app = typer.Typer(
    cls=Group,
    callback=_root,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"max_content_width": 110},
)
operations.register(app)
projects.register(app)
models.register(app)
imports.register(app)
scoring.register(app)
releases.register(app)
records.register(app)
app.add_typer(datasets.datasets_app, name="datasets", cls=Group)
app.add_typer(features.features_app, name="features", cls=Group)
app.add_typer(training_sets.training_set_app, name="training-set", cls=Group)
app.add_typer(access.token_app, name="token", cls=Group)
app.add_typer(access.principal_app, name="principal", cls=Group)
demo.register(app)
