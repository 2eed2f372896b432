"""``relevo status``, ``predict``, ``history`` and ``versions``: what is live, and what it answers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from relevo.cli.client import Client
from relevo.cli.terminal import console, moment, table
from relevo.errors import Invalid


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(status)
    app.command()(versions)
    app.command()(history)
    app.command()(predict)


def status(
    model: Annotated[str | None, typer.Argument(help="One model; all when left out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show every model: what is live, its traffic and health, and what it waits for."""
    client = Client.from_settings()
    fleet = [one for one in client.get("/api/models") if model in (None, one["model"])]
    if as_json:
        console.print_json(json.dumps(fleet))
        return
    columns = ["model", "live", "health", "predictions", "drift", "performance", "alerts", "now"]
    rows = [
        [
            one["model"], one["live"] or "-", one["health"], one["predictions"], one["drift"] or "-",
            one["performance"] or "-", one["alerts"], one["activity"] or "-",
        ]
        for one in fleet
    ]  # fmt: skip
    table(columns, rows, empty="No model yet. Start one with: relevo init NAME && relevo apply NAME")


def versions(model: Annotated[str, typer.Argument(help="Name of the model.")]) -> None:
    """List the versions of a model."""
    rows = [
        [one["number"], one["stage"], moment(one["as_of"]), one["run_id"], one["bundle"][:12]]
        for one in Client.from_settings().get(f"/api/models/{model}/versions")
    ]
    table(["version", "stage", "known until", "run", "bundle"], rows, empty=f"{model} has no version yet.")


def history(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    at: Annotated[str | None, typer.Option(help="An event time, such as 2013-08-15T00:00Z.")] = None,
) -> None:
    """Show what was live when, and who approved it."""
    routes = Client.from_settings().get(f"/api/models/{model}/history", at=at)
    rows = [
        [
            moment(route["effective_event_at"]),
            f"{model}/{arm['version']}",
            f"{arm['percent']:g} %",
            ", ".join(word["principal"] for word in arm["approvals"] if word["approved"]) or "-",
            route["reason"],
            moment(route["recorded_at"]),
        ]
        for route in routes
        for arm in route["arms"]
    ]
    columns = ["live since (event time)", "version", "traffic", "approved by", "reason", "recorded at"]
    table(columns, rows, empty=f"{model} has never been live.")


def predict(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    values: Annotated[list[str] | None, typer.Argument(help="column=value, once a column.")] = None,
    file: Annotated[Path | None, typer.Option(help="JSON file with a list of records; - for standard input.")] = None,
) -> None:
    """Ask an endpoint."""
    client = Client.from_settings()
    endpoint = client.gateway_get(f"/endpoints/{model}")
    records = _records_of(file) if file is not None else [_record(values or [], endpoint)]
    answer = client.gateway_post(f"/endpoints/{model}/invocations", {"dataframe_records": records})
    rows = zip(answer["predictions"], answer["prediction_ids"], strict=True)
    table(["prediction", "id"], [[value if isinstance(value, float) else str(value), i] for value, i in rows], empty="")
    console.print(f"version {answer['version']}", style="dim")


def _record(values: list[str], endpoint: dict[str, Any]) -> dict[str, Any]:
    signature = endpoint["signature"]
    kinds = {column["name"]: column["type"] for column in [*signature["inputs"], *signature["keys"]]}
    record: dict[str, Any] = {}
    for value in values:
        name, sign, text = value.partition("=")
        if not sign:
            raise Invalid(f"Expected column=value, got {value!r}; columns are {', '.join(kinds)}.", field=value)
        record[name] = _typed(text, kinds.get(name, "text"), name)
    return record


def _typed(text: str, kind: str, name: str) -> object:
    if text == "":
        return None
    if kind in {"float", "integer", "boolean"}:
        try:
            return json.loads(text)
        except ValueError:
            raise Invalid(f"{name} needs a {kind}, got {text!r}.", field=name) from None
    return text


def _records_of(file: Path) -> list[dict[str, Any]]:
    text = sys.stdin.read() if str(file) == "-" else file.read_text()
    records = json.loads(text)
    return records if isinstance(records, list) else [records]
