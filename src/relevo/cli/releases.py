"""``relevo releases``, ``approve``, ``reject``, ``train`` and ``rollback``: who decides what goes live."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from relevo.cli.client import Client
from relevo.cli.following import follow
from relevo.cli.terminal import moment, say, show_json, table

Release = Annotated[str, typer.Argument(help="Id of the release; see `relevo releases`.")]
Model = Annotated[str, typer.Argument(help="Name of the model.")]
Why = Annotated[str, typer.Option("--reason", help="Why; it is kept in the ledger.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (releases, approve, reject, train, rollback):
        app.command()(command)


def releases(
    model: Annotated[str | None, typer.Argument(help="One model; all when left out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List releases and how each ended, the newest first."""
    client = Client.from_settings()
    found = client.get("/api/releases", model=model)
    if model is not None and not found:
        client.get(f"/api/models/{model}")  # a model that does not exist is an error, not an empty list
    if as_json:
        show_json(found)
        return
    rows = [
        [
            one["id"],
            one["version"],
            one["state"].replace("_", " "),
            moment(one["event_at"]),
            one["outcome"] or one["reason"],
        ]
        for one in found
    ]
    table(["release", "version", "state", "event time", "why"], rows, empty="No release yet.")
    waiting = [one["id"] for one in found if one["state"] == "waiting_for_approval"]
    if waiting:
        say(f"A second person decides: relevo approve {waiting[0]} --reason WHY", "yellow")


def approve(release: Release, reason: Why) -> None:
    """Approve a release that waits for a second person."""
    _decide(release, approved=True, reason=reason)


def reject(release: Release, reason: Why) -> None:
    """Refuse a release that waits for a second person."""
    _decide(release, approved=False, reason=reason)


def train(model: Model, reason: Why, wait: Annotated[bool, typer.Option(help="Follow the release.")] = True) -> None:
    """Train a challenger on what is known by now; it goes live if it wins."""
    client = Client.from_settings()
    started = client.post(f"/api/models/{model}/train", {"reason": reason})["release"]
    say(f"Started {started}.")
    if wait:
        follow(client, started)


def rollback(model: Model, reason: Why) -> None:
    """Put the previous champion back."""
    answer = Client.from_settings().post(f"/api/models/{model}/rollback", {"reason": reason})
    if "cancelled" in answer:
        say(f"Release {answer['cancelled']} gives its traffic back.")
        return
    arms = answer["route"]["arms"]
    say(f"{model}/{arms[0]['version']} is live again.", "green")


def _decide(release: str, *, approved: bool, reason: str) -> None:
    client = Client.from_settings()
    shown: dict[str, Any] = client.get(f"/api/releases/{release}")
    vote = client.post(f"/api/releases/{release}/decision", {"approved": approved, "reason": reason})
    found = shown["release"]
    word = "approved" if approved else "refused"
    say(f"{found['model']}/{found['version']} {word} ({vote['given']} of {vote['needed']} approvals).")
    if approved and vote["given"] >= vote["needed"]:
        say(f"It goes on its way now. Look with: relevo status {found['model']}", "dim")
