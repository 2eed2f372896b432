"""All commands, each group in its module."""

from __future__ import annotations

import typer

from relevo.cli import access, demo, models, operations, projects, releases

app = typer.Typer(
    help="Brings machine-learning models to production and keeps them healthy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
operations.register(app)
projects.register(app)
models.register(app)
releases.register(app)
app.add_typer(access.token_app, name="token")
app.add_typer(access.principal_app, name="principal")
demo.register(app)
