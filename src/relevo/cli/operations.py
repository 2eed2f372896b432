"""``relevo up``, ``logs`` and ``doctor``: run it, and see what it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from relevo.cli.client import (
    CREDENTIALS,
    Credentials,
    nearest_settings,
    read_settings,
    renew_addresses,
    save_credentials,
)
from relevo.cli.logs import logs
from relevo.cli.terminal import errors, say, show_json, table
from relevo.errors import Unavailable

if TYPE_CHECKING:
    from relevo.platform.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(up)
    app.command()(logs)
    app.command()(doctor)


def up(
    port: Annotated[int | None, typer.Option(help="Port of the console and the API.")] = None,
    gateway_port: Annotated[int | None, typer.Option(help="Port of the endpoints.")] = None,
    workers: Annotated[int | None, typer.Option(help="Gateway processes that share the port.")] = None,
) -> None:
    """Start control plane, gateway and collector; Ctrl-C stops them."""
    import sqlalchemy as sa

    from relevo.app.installation import prepare, require_online_store
    from relevo.app.supervisor import Supervisor, listening, locked_home
    from relevo.platform.processes import die_with_supervisor
    from relevo.serving import tracing

    die_with_supervisor()
    settings = read_settings(port=port, gateway_port=gateway_port, gateway_workers=workers)
    require_online_store(settings)
    tracing.check()
    url, gateway = (f"http://{settings.host}:{number}" for number in (settings.port, settings.gateway_port))
    with locked_home(settings), listening(settings) as sockets:
        try:
            token = prepare(settings, keep=lambda token: save_credentials(settings, Credentials(url, gateway, token)))
        except sa.exc.SQLAlchemyError as error:
            raise _state_error(settings, error) from None
        if token is not None:
            say(Text("First admin token, shown once: ") + Text(token, style="bold"))
            say(f"Commands in this folder find it in {settings.root / CREDENTIALS} (readable by you alone).", "dim")
        else:
            renew_addresses(settings, url, gateway)
        supervisor = Supervisor(
            settings, sockets, lambda line: errors.print(Text(line, style="yellow"), soft_wrap=True)
        )

        def announce() -> None:
            say(Text("Console  ", style="bold") + Text(url, style="cyan"))
            say(Text("Gateway  ", style="bold") + Text(gateway, style="cyan"))
            say(f"Home     {settings.root}   Ctrl-C stops.", "dim")
            if token is not None:
                say("Next, in another terminal: relevo init NAME, then relevo apply NAME", "dim")

        supervisor.run(announce)


def _state_error(settings: Settings, error: Exception) -> Unavailable:
    """Why the state store cannot be used, without the passwords of its URL."""
    from relevo.platform.logging import redact

    words = redact(str(error)).splitlines()[0]
    if "disk is full" in words or "disk I/O error" in words:
        return Unavailable(f"The disk of {settings.root} is full.", hint="Make room, or set RELEVO_HOME to another.")
    what = f"state.db in {settings.root}" if settings.state_url is None else "the database of RELEVO_STATE_URL"
    return Unavailable(f"The state store, {what}, cannot be used: {words}", hint="Look closer with: relevo doctor")


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Look for what would stop Relevo here, and say what to do."""
    from dataclasses import asdict

    from relevo.app.checkup import examine

    findings = examine(nearest_settings())
    if as_json:
        show_json([asdict(one) for one in findings])
    else:
        styles = {"ok": "green", "warning": "yellow", "error": "red"}
        rows = [[Text(one.level, style=styles[one.level]), one.subject, one.message] for one in findings]
        table(["", "what", "found"], rows, empty="")
    if any(one.level == "error" for one in findings):
        raise typer.Exit(1)
