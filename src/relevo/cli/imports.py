"""``relevo import``: a model that an MLflow client logged here becomes one that is released and served."""

from __future__ import annotations

import os
import time
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from relevo.cli.client import Client, error_from
from relevo.cli.following import LOOK_EVERY_SECONDS, follow, patient, progress
from relevo.cli.terminal import explain, say, table
from relevo.errors import NotFound


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("import")(import_model)


def import_model(
    uri: Annotated[str, typer.Argument(help="models:/NAME/VERSION, models:/NAME@ALIAS or runs:/RUN_ID/PATH.")],
    name: Annotated[str | None, typer.Option("--as", help="Name here; else that of the registered model.")] = None,
    owner: Annotated[str | None, typer.Option(help="Who answers for it; else you.")] = None,
    task: Annotated[str | None, typer.Option(help="classification or regression; else found in the model.")] = None,
    classes: Annotated[str | None, typer.Option(help="Labels by comma, where the model does not know them.")] = None,
    environment: Annotated[str, typer.Option(help="model: by its requirements.txt; own: that of Relevo.")] = "model",
    log: Annotated[str, typer.Option(help="durable or buffered.")] = "durable",
    approvals: Annotated[int, typer.Option(help="How many people must approve.")] = 1,
    p99_ms: Annotated[float, typer.Option(help="Latency that a canary of it must keep.")] = 50.0,
    reason: Annotated[str, typer.Option(help="Why; it is kept in the ledger.")] = "",
    wait: Annotated[bool, typer.Option(help="Follow the import and its release.")] = True,
) -> None:
    """Import a model from MLflow here: it is sealed, reviewed and served like one that was trained by a contract."""
    client = Client.from_settings(timeout_seconds=180)  # MLflow may be coming up
    asked = {
        "uri": uri, "model": name, "owner": owner, "task": task, "environment": environment, "log": log,
        "approvals": approvals, "p99_ms": p99_ms, "reason": reason,
        "classes": [label.strip() for label in classes.split(",")] if classes else [],
    }  # fmt: skip
    try:
        started = client.post("/api/imports", asked)
    except NotFound as error:
        raise NotFound(error.message, field=error.field, hint=_elsewhere(client) or error.hint) from None
    say(f"Importing {started['model']}/{started['version']} as {started['import']}.")
    if not wait:
        return
    shown = _followed(client, started["import"])
    _show_found(shown["found"])
    follow(client, shown["release"])


def _followed(client: Client, import_id: str) -> dict[str, Any]:
    """The import once it has ended well."""
    try:
        with progress() as show:
            while True:
                shown: dict[str, Any] = patient(lambda: client.get(f"/api/imports/{import_id}"), show)
                if shown["state"] != "running":
                    break
                show(shown["now"] or "starting")
                time.sleep(LOOK_EVERY_SECONDS)
    except KeyboardInterrupt:
        explain(f"Not followed any more; {import_id} goes on. Type the same command again to look.")
        raise
    if shown["error"] is not None:
        raise error_from(shown["error"])
    return shown


def _show_found(found: dict[str, Any]) -> None:
    """What was found in the model, and which runtime it got."""
    signature, agreement = found["signature"], found["agreement"]
    columns = ", ".join(f"{column['name']}: {column['type']}" for column in signature["inputs"])
    classes = f" of {', '.join(signature['classes'])}" if signature["classes"] else ""
    rows: list[list[object]] = [
        ["flavor", found["flavor"]],
        ["inputs", columns],
        ["answers", f"{signature['task']}{classes}"],
        ["environment", found["environment"]],
        ["python", found["python"]],
        ["runtime", _runtime(found["runtime"])],
        ["agreement", f"largest difference {agreement['largest_difference']:.1e} on {found['compared_on']}"],
    ]
    rows += [[f"not {each['runtime']}", each["reason"]] for each in agreement["refused"]]
    if found["logged_metrics"]:
        told = ", ".join(f"{name} {value:.4g}" for name, value in found["logged_metrics"].items())
        rows.append(["its run logged", f"{told} (not measured here)"])
    table(["found", "what"], rows, empty="")


def _runtime(name: str) -> str:
    return "isolated: the model itself in a process of its own" if name == "isolated" else f"{name}, compiled"


def _elsewhere(client: Client) -> str | None:
    """A hint for whoever logs to another server than this one."""
    named = os.environ.get("MLFLOW_TRACKING_URI")
    own = f"{client.credentials.url}/mlflow"
    if named is None or (urlsplit(named).port, urlsplit(named).path) == (urlsplit(own).port, urlsplit(own).path):
        return None
    return f"MLFLOW_TRACKING_URI is {named}; only models that were logged to {own} can be imported."
