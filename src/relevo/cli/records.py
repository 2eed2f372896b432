"""``relevo alerts`` and ``ledger``: what needs a look, and what was done by whom."""

from __future__ import annotations

from typing import Annotated

import typer

from relevo.cli.client import Client
from relevo.cli.terminal import moment, say, show_json, table

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(alerts)
    app.command()(ledger)


def alerts(
    model: Annotated[str | None, typer.Argument(help="One model; all when left out.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Those that are over, too.")] = False,
    as_json: Json = False,
) -> None:
    """List open alerts, the newest first."""
    client = Client.from_settings()
    found = client.get("/api/alerts", state="all" if every else "open", model=model)["alerts"]
    if model is not None and not found:
        client.get(f"/api/models/{model}")  # a model that does not exist is an error, not a quiet one
    if as_json:
        show_json(found)
        return
    rows = [
        [one["id"], one["endpoint"], one["severity"], one["kind"], moment(one["event_at"]),
         *([moment(one["resolved_at"]) or "-"] if every else []), one["message"]]
        for one in found
    ]  # fmt: skip
    over = ["over since"] if every else []
    empty = "No alert." if every else "No open alert."
    table(["alert", "model", "severity", "about", "event time", *over, "message"], rows, empty=empty)


def ledger(
    subject: Annotated[
        str | None, typer.Argument(help="A model such as flight-delay, or a version such as flight-delay/3.")
    ] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=1000, help="How many of the newest.")] = 20,
    verify: Annotated[bool, typer.Option("--verify", help="Check every entry's hash and link.")] = False,
    as_json: Json = False,
) -> None:
    """Show who did what and why, the newest first."""
    client = Client.from_settings()
    if verify:
        found = client.get("/api/ledger/verification")
        if as_json:
            show_json(found)
            return
        say(f"{found['entries']} entries, each hash and link as recorded.", "green")
        say(f"The last hash, to keep elsewhere: {found['head']}", "dim")
        return
    entries = client.get("/api/ledger", subject=subject, limit=lines)
    if as_json:
        show_json(entries)
        return
    rows = [
        [one["sequence"], moment(one["recorded_at"]), one["actor"], one["action"], one["subject"], one["reason"]]
        for one in entries
    ]
    table(["entry", "recorded at", "actor", "action", "subject", "reason"], rows, empty="No entry.")
