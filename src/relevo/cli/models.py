"""``relevo status``, ``versions``, ``history`` and ``predict``: what is live, and what it answers."""

from __future__ import annotations

import json
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from relevo.cli.client import Client
from relevo.cli.following import show_example
from relevo.cli.terminal import cell_text, moment, say, show_json, table
from relevo.errors import Invalid, RelevoError

Model = Annotated[str, typer.Argument(help="Name of the model.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(status)
    app.command()(versions)
    app.command()(history)
    app.command()(predict)


def status(
    model: Annotated[str | None, typer.Argument(help="One model in full; all when left out.")] = None,
    as_json: Json = False,
) -> None:
    """Show what is live, its traffic and health, and what it waits for."""
    client = Client.from_settings()
    if model is not None:
        one = client.get(f"/api/models/{model}")
        show_json(one) if as_json else _show_model(client, one)
        return
    fleet = client.get("/api/models")
    if as_json:
        show_json(fleet)
        return
    columns = ["model", "live", "health", "predictions", "drift", "performance", "alerts", "now"]
    rows = [
        [
            one["model"], one["live"] or "-", one["health"], one["predictions"], one["drift"] or "-",
            one["performance"] or "-", one["alerts"], one["activity"] or "-",
        ]
        for one in fleet
    ]  # fmt: skip
    table(columns, rows, empty="No model yet. Start one with: relevo init NAME, then relevo apply NAME")


def _show_model(client: Client, one: dict[str, Any]) -> None:
    release = next(iter(client.get("/api/releases", model=one["model"], limit=1)), None)
    facts = {
        "health": one["health"],
        "live": one["live"] or "nothing yet",
        "predictions": one["predictions"],
        "performance": one["performance"] or f"{one['metric']}: no window with labels yet",
        "drift": one["drift"] or "no window yet",
        "alerts": f"{one['alerts']} open: relevo alerts {one['model']}" if one["alerts"] else "none",
        "budgets": _budgets(client.get(f"/api/models/{one['model']}/service-level")),
        "contract": f"revision {one['revision']}, {one['task']}, owned by {one['owner']}",
        "release": f"{release['id']}: {release['state'].replace('_', ' ')}" if release else "none",
        "now": one["activity"] or "nothing under way",
    }
    say(one["model"], "bold")
    for name, fact in facts.items():
        say(Text(f"  {name:<12}", style="dim") + cell_text(fact))
    if release and release["state"] == "waiting_for_approval":
        say(f"A second person decides: relevo approve {release['id']} --reason WHY", "yellow")
    if one["champion"] is not None:
        show_example(client, one["model"])


def _budgets(level: dict[str, Any]) -> str:
    """What is left of each error budget, and how fast it burns."""
    parts = []
    for budget in level["budgets"]:
        burns = ", ".join(f"{rate:.1f}x in {window}" for window, rate in budget["burn"].items() if rate is not None)
        left = f"{budget['left']:.0%} left" if budget["requests"] else "no request yet"
        name = budget["kind"].removesuffix("_budget")
        parts.append(f"{name} {left}" + (f", burns {burns}" if burns else ""))
    return f"{'; '.join(parts)}; over {level['period_days']} days"


def versions(model: Model, as_json: Json = False) -> None:
    """List the versions of a model."""
    found = Client.from_settings().get(f"/api/models/{model}/versions")
    if as_json:
        show_json(found)
        return
    rows = [[one["number"], one["stage"], moment(one["as_of"]), one["run_id"], one["bundle"][:12]] for one in found]
    table(["version", "stage", "known until", "run", "bundle"], rows, empty=f"{model} has no version yet.")


def history(
    model: Model,
    at: Annotated[str | None, typer.Option(help="An event time, such as 2013-08-15T00:00Z.")] = None,
    as_json: Json = False,
) -> None:
    """Show what was live when, and who approved it."""
    client = Client.from_settings()
    routes = client.get(f"/api/models/{model}/history", at=None if at is None else event_time(at).isoformat())
    if not routes:
        client.get(f"/api/models/{model}")  # a model that does not exist is an error, not an empty history
    if as_json:
        show_json(routes)
        return
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


def event_time(text: str, option: str = "--at") -> datetime:
    """A time as people write it; a day alone begins at midnight UTC.

    Raises:
        Invalid: It is none, or does not say where on earth.
    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise Invalid(
            f"{option} needs a time such as 2013-08-15T00:00Z, got {text!r}.", field=option.lstrip("-")
        ) from None
    if at.tzinfo is None:
        if len(text) > len("2013-08-15"):
            raise Invalid(
                f"{option} needs its offset, such as {text}Z or {text}+01:00, got {text!r}.", field=option.lstrip("-")
            )
        at = at.replace(tzinfo=UTC)
    return at


def predict(
    model: Model,
    values: Annotated[list[str] | None, typer.Argument(help="column=value, once a column.")] = None,
    file: Annotated[Path | None, typer.Option(help="JSON file with a list of records; - for standard input.")] = None,
    as_json: Json = False,
) -> None:
    """Ask an endpoint."""
    client = Client.from_settings()
    signature = client.gateway_get(f"/endpoints/{model}")["signature"]
    if file is not None and values:
        raise typer.BadParameter("give column=value or --file, not both.")
    records = _records_of(file) if file is not None else [_record(values or [], signature)]
    try:
        answer = client.gateway_post(f"/endpoints/{model}/invocations", {"dataframe_records": records})
    except Invalid as error:
        raise Invalid(error.message, field=error.field, hint=error.hint or _example(client, model)) from None
    if as_json:
        show_json(answer)
        return
    _show_predictions(answer, signature)


def _show_predictions(answer: dict[str, Any], signature: dict[str, Any]) -> None:
    classes = signature["classes"]
    rows: list[list[object]] = []
    for value, prediction_id in zip(answer["predictions"], answer["prediction_ids"], strict=True):
        cells = value if isinstance(value, list) else [value]
        rows.append([*(float(cell) for cell in cells), prediction_id])
    names = [f"P({name})" for name in (classes if len(classes) > 2 else classes[1:])] or ["prediction"]
    table([*names, "id"], rows, empty="No row.")
    say(f"version {answer['version']}", "dim")


def _example(client: Client, model: str) -> str | None:
    """A command that works, as a hint; None where this token may not see it."""
    try:
        row = client.get(f"/api/models/{model}/example")["row"]
    except RelevoError:
        return None
    values = " ".join(shlex.quote(f"{name}={_written(value)}") for name, value in row.items())
    return f"For example: relevo predict {model} {values}"


def _written(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _record(values: list[str], signature: dict[str, Any] | None) -> dict[str, Any]:
    described = [] if signature is None else [*signature["inputs"], *signature["keys"]]
    kinds = {column["name"]: column["type"] for column in described}
    record: dict[str, Any] = {}
    for value in values:
        name, sign, text = value.partition("=")
        if not sign:
            raise Invalid(f"Expected column=value, got {value!r}; columns are {', '.join(kinds)}.", field=value)
        if name in record:
            raise Invalid(f"Column {name!r} is given twice.", field=name)
        record[name] = typed(text, kinds.get(name, "text"), name)
    return record


def typed(text: str, kind: str, name: str) -> object:
    """A value from the command line as its column's type; nothing after the sign is null.

    Raises:
        Invalid: It is of another type.
    """
    if text == "":
        return None
    wanted = {"float": (int, float), "integer": (int,), "boolean": (bool,)}.get(kind)
    if wanted is None:
        return text
    try:
        value = json.loads(text.lower() if kind == "boolean" else text)
    except ValueError:
        value = None
    if not isinstance(value, wanted) or (kind != "boolean" and isinstance(value, bool)):
        words = {"float": "a number", "integer": "a whole number", "boolean": "true or false"}
        raise Invalid(f"{name} needs {words[kind]}, got {text!r}.", field=name)
    return value


def _records_of(file: Path) -> list[dict[str, Any]]:
    name = "standard input" if str(file) == "-" else str(file)
    try:
        records = json.loads(sys.stdin.read() if str(file) == "-" else file.read_text())
    except FileNotFoundError:
        raise Invalid(f"There is no file {file}.", field="file") from None
    except ValueError as error:
        raise Invalid(f"{name} is not JSON: {error}.", hint='Expected: [{"column": value, ...}, ...]') from None
    if isinstance(records, dict):
        return [records]
    if not isinstance(records, list) or not all(isinstance(one, dict) for one in records):
        raise Invalid(f'{name} holds no records; expected [{{"column": value, ...}}, ...].')
    return records
