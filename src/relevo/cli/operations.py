"""``relevo up``, ``logs`` and ``doctor``: run it, and see what it does."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from relevo.cli.client import Credentials, save_credentials
from relevo.cli.terminal import console, errors, table
from relevo.errors import NotFound
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
    """Start control plane, gateway and collector; stop them with Ctrl-C."""
    from relevo.app.installation import prepare
    from relevo.app.supervisor import Supervisor, locked_home

    given = {"port": port, "gateway_port": gateway_port, "gateway_workers": workers}
    settings = Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    url, gateway = (f"http://{settings.host}:{number}" for number in (settings.port, settings.gateway_port))
    with locked_home(settings):
        token = prepare(settings)
        if token is not None:
            kept = save_credentials(settings, Credentials(url, gateway, token))
            console.print(Text("First admin token, shown once: ") + Text(token, style="bold"), soft_wrap=True)
            console.print(Text(f"Commands on this machine find it in {kept} (readable by you alone).", style="dim"))
        supervisor = Supervisor(settings, say=lambda line: errors.print(Text(line, style="yellow"), soft_wrap=True))

        def announce() -> None:
            console.print(Text("Console  ", style="bold") + Text(url, style="cyan"))
            console.print(Text("Gateway  ", style="bold") + Text(gateway, style="cyan"))
            console.print(Text(f"Home     {settings.root}   Ctrl-C stops.", style="dim"))

        supervisor.run(announce)


def logs(
    process: Annotated[
        str | None, typer.Argument(help="control, gateway-0, collector, or a run; all lists them.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many lines.")] = 40,
) -> None:
    """Show the log of a process or of a job."""
    folder = Settings().root / "logs"
    found = {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.log"))}
    if process is None:
        rows = [[name, path.stat().st_size, time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(path.stat().st_mtime))]
                for name, path in found.items()]  # fmt: skip
        table(["log", "bytes", "last line at (UTC)"], rows, empty=f"No log under {folder}; has `relevo up` run here?")
        return
    if process not in found:
        raise NotFound(f"There is no log {process!r} under {folder}.", hint=f"There are: {', '.join(found) or 'none'}.")
    _show(found[process], lines, follow=follow)


def _show(path: Path, lines: int, *, follow: bool) -> None:
    with path.open(errors="replace") as file:
        for line in file.readlines()[-lines:]:
            sys.stdout.write(line)
        while follow:
            sys.stdout.write(file.read())
            sys.stdout.flush()
            time.sleep(0.2)


def doctor() -> None:
    """Look for what would stop Relevo from working here, and say what to do."""
    from relevo.app.checkup import examine

    findings = examine(Settings())
    marks = {
        "ok": Text("ok", style="green"),
        "warning": Text("warning", style="yellow"),
        "error": Text("error", style="red"),
    }
    table(["", "what", "found"], [[marks[one.level], one.subject, one.message] for one in findings], empty="")
    if any(one.level == "error" for one in findings):
        raise typer.Exit(1)
