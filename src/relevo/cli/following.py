"""What a release does until it has ended or waits for a person, and what to do then."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import typer
from rich.text import Text

from relevo.cli.client import Client
from relevo.cli.terminal import console, errors, explain, say
from relevo.errors import JobFailed, RelevoError, Unavailable

LOOK_EVERY_SECONDS = 0.3
#: The control plane may be started again meanwhile; the release goes on then.
PATIENCE_SECONDS = 60.0
_OPEN = {"training", "waiting_for_approval", "shadow", "canary"}
T = TypeVar("T")
_NUMBER = re.compile(r"[\d.,]+")


def follow(client: Client, release_id: str) -> None:
    """Show what a release does, then its gates and what to do next. Leaving with Ctrl-C leaves the release alone.

    Raises:
        JobFailed: It failed.
        RelevoError: It ended without going live.
    """
    try:
        with progress() as show:
            while True:
                release, activity = _look(client, release_id, show)
                state = release["release"]["state"] if release else "training"
                is_working = activity is not None and activity["state"] == "working"
                if release and ((state == "waiting_for_approval" and not is_working) or state not in _OPEN):
                    break
                show(activity["text"] if activity and activity["text"] else state.replace("_", " "))
                time.sleep(LOOK_EVERY_SECONDS)
    except KeyboardInterrupt:
        explain(f"Not followed any more; the release {release_id} goes on. Look with: relevo releases")
        raise
    show_outcome(client, release)


def show_outcome(client: Client, shown: dict[str, Any]) -> None:
    """The gates of a release, how it stands, and what to do next."""
    release, evidence = shown["release"], shown["evidence"]
    for gate in evidence["gates"] if evidence else []:
        say((Text("pass  ", style="green") if gate["passed"] else Text("fail  ", style="red")) + Text(gate["message"]))
    subject = f"{release['model']}/{release['version']}" if release["version"] else release["model"]
    if release["state"] == "waiting_for_approval":
        _show_how_to_approve(client, subject, release)
    elif release["state"] == "live":
        say(f"{subject} is live.", "green")
        show_example(client, release["model"])
    else:
        words = release["state"].replace("_", " ")
        errors.print(Text(f"{subject}: {words}: {release['outcome']}", style="red"), soft_wrap=True)
        if release["state"] == "failed":
            raise JobFailed(
                f"Release {release['id']} failed.", hint=f"What its code printed: relevo logs {release['id']}"
            )
        what = "The version stays a candidate." if release["version"] else "Nothing was released."
        raise RelevoError(f"Release {release['id']} did not go live.", hint=what)


def show_example(client: Client, model: str) -> None:
    """A line that asks the endpoint and works when pasted; nothing where this token may not see it."""
    try:
        curl = client.get(f"/api/models/{model}/example")["curl"]
    except RelevoError:
        return
    say("Ask it from any program (paste both):", "dim")
    say("export RELEVO_TOKEN=$(relevo token show)")
    say(curl)
    say(f"Console: {client.credentials.url}/models/{model}", "dim")


def _show_how_to_approve(client: Client, subject: str, release: dict[str, Any]) -> None:
    say(f"{subject} waits for approval by a second person, not {release['requested_by']}:", "yellow")
    say(f"  relevo approve {release['id']} --reason WHY")
    say(f"or in the console: {client.credentials.url}/approvals", "dim")
    explain(
        "Nobody yet? `relevo principal create NAME --role reviewer`, then `relevo token create NAME`: "
        "the token goes into that person's RELEVO_TOKEN."
    )


def _look(client: Client, release_id: str, show: Callable[[str], None]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The release, empty before it has begun, and what its workflow does."""

    def look() -> tuple[dict[str, Any], dict[str, Any] | None]:
        activities = client.get("/api/activity")
        activity = next((one for one in activities if one["workflow_id"] == release_id), None)
        has_begun = any(one["id"] == release_id for one in client.get("/api/releases"))
        return client.get(f"/api/releases/{release_id}") if has_begun else {}, activity

    return patient(look, show)


def patient(look: Callable[[], T], show: Callable[[str], None]) -> T:
    """What ``look`` gives, once the control plane answers.

    Raises:
        Unavailable: It has not for a minute.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return look()
        except Unavailable:
            if time.monotonic() > deadline:
                raise
            show("the control plane does not answer; waiting for it")
            time.sleep(1)


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """A line that changes on a terminal; elsewhere a line whenever something else than a number in it changes."""
    if console.is_terminal:
        with console.status("starting") as status:
            started = time.monotonic()
            yield lambda text: status.update(f"{text}  [dim]{time.monotonic() - started:.0f} s[/dim]")
        return
    seen: list[str] = []

    def show(text: str) -> None:
        kind = _NUMBER.sub("", text)
        if seen[-1:] != [kind]:
            seen.append(kind)
            typer.echo(text)

    yield show
