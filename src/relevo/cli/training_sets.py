"""``relevo training-set``: what a version was trained on, and the proof that it can be made again."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from relevo.cli.client import Client
from relevo.cli.terminal import moment, say, show_json, table

Model = Annotated[str, typer.Argument(help="Name of the model.")]
Version = Annotated[int, typer.Argument(min=1, help="Number of the version.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

training_set_app = typer.Typer(help="What a version was trained on.", no_args_is_help=True, rich_markup_mode=None)

#: Making a large training set again takes minutes.
PATIENCE_SECONDS = 3600.0


@training_set_app.command()
def show(model: Model, version: Version, as_json: Json = False) -> None:
    """Show the dataset versions, views and code that a version's training set was made of."""
    pins = Client.from_settings().get(f"/api/models/{model}/versions/{version}/training-set")
    if as_json:
        show_json(pins)
        return
    rows = pins["rows"]
    facts = {
        "digest": pins["training_set"],
        "rows": f"{rows.get('fitted', 0):,} fitted, {rows.get('held_out', 0):,} held out",
        "as of": moment(pins["as_of"]),
        "contract": f"revision {pins['contract_revision']}",
        "code": f"snapshot {pins['snapshot'][:12]}",
        "views": ", ".join(f"{name}:{definition}" for name, definition in pins["views"].items()) or "none",
    }
    say(f"{model}/{version}", "bold")
    for name, fact in facts.items():
        say(Text(f"  {name:<10}", style="dim") + Text(fact))
    say("")
    datasets = [[name, one["version"], one["rows"], one["digest"][:12]] for name, one in pins["datasets"].items()]
    table(["dataset", "version", "rows", "content"], datasets, empty="No dataset.")


@training_set_app.command()
def verify(model: Model, version: Version, as_json: Json = False) -> None:
    """Make a version's training set again from its pins, and compare the digests; exit status 1 when they differ."""
    client = Client.from_settings(timeout_seconds=PATIENCE_SECONDS)
    found = client.post(f"/api/models/{model}/versions/{version}/training-set/verification")
    if as_json:
        show_json(found)
    elif found["is_same"]:
        say(f"The training set of {model}/{version} comes out the same: {found['rows']:,} rows.", "green")
        say(f"digest {found['rebuilt']}", "dim")
    else:
        say(f"The training set of {model}/{version} comes out different.", "red")
        say(f"pinned   {found['pinned']}")
        say(f"rebuilt  {found['rebuilt']}, {found['rows']:,} rows")
        changed = ", ".join(found["changed"])
        say(f"Not what was pinned: {changed}." if changed else "Each pinned dataset is as it was: the code differs.")
    if not found["is_same"]:
        raise typer.Exit(1)
