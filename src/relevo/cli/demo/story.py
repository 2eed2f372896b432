"""The demo from door to door: start Relevo, apply the contract, replay the year, show what came of it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import relevo
from relevo.cli.client import CREDENTIALS, Client, Credentials, credentials
from relevo.cli.demo.progress import Progress
from relevo.cli.demo.report import Figures, draw, gather, show
from relevo.cli.demo.traffic import Tally, Traffic, open_session
from relevo.contract.upload import read_project
from relevo.errors import Conflict, NotAuthenticated, NotFound, RelevoError, Unavailable
from relevo.platform.processes import SUPERVISOR_VARIABLE
from relevo.platform.settings import Settings

MODEL = "flight-delay"
BEGINS = datetime(2013, 4, 1, tzinfo=UTC)  # January to March is what the first model learns from
TICK = timedelta(hours=12)
#: The last window becomes final when its labels are due and waited for: 6 + 24 hours after its end.
SETTLES_AFTER = timedelta(hours=36)
MARKER = "demo"
START_WITHIN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Cast:
    """Who plays: an administrator, an engineer, a reviewer, and the airline's application."""

    admin: Client
    engineer: Client
    reviewer: Client
    application_token: str


def run(*, until: date, stays: bool, figures: Path | None) -> None:
    """Play the demo; with ``stays`` the console is left running until Ctrl-C.

    Raises:
        Conflict: The home folder holds other work.
    """
    settings, began = Settings(), monotonic()
    example = example_folder()
    _empty(settings)
    with _relevo(settings) as process, Progress() as progress:
        progress.say("Starting Relevo: control plane, gateway, collector")
        cast = _cast(_first_client(settings, process))
        board = _board(example)
        _first_release(cast, example, progress)
        tally = asyncio.run(_replay(cast, board, _midnight_after(until), progress))
        found = gather(cast.admin, MODEL, tally, seconds=monotonic() - began)
        progress.stop()
        picture = draw(found, settings.root / "demo.svg")
        show(found, picture, cast.admin.credentials.url)
        if figures is not None:
            figures.write_text(json.dumps(found.as_json(), indent=2) + "\n")
        _complain(found)
        if stays:
            _stay(cast.admin.credentials, process)


def example_folder() -> Path:
    """The flights example: beside the code in a clone, inside the package when it is installed.

    Raises:
        NotFound: It is in neither place.
    """
    package = Path(relevo.__file__).parent
    for folder in (package / "examples" / "flights", package.parents[1] / "examples" / "flights"):
        if (folder / "relevo.yaml").exists():
            return folder
    raise NotFound(f"The flights example is not beside {package}.", hint="Run the demo from a clone of the repository.")


def _empty(settings: Settings) -> None:
    """Start from nothing; an earlier demo's home is emptied, anybody else's is left alone."""
    root = settings.root
    if (root / "state.db").exists() and not (root / MARKER).exists():
        raise Conflict(
            f"The home folder {root} holds other work.", hint="Set RELEVO_HOME to an empty folder for the demo."
        )
    from relevo.app.supervisor import locked_home

    if root.exists():
        with locked_home(settings):
            for folder in (path for path in root.rglob("*") if path.is_dir()):
                folder.chmod(0o700)  # snapshots of code are read-only
            for path in root.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    (settings.folder() / MARKER).touch()


@contextmanager
def _relevo(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """``relevo up`` as a process of its own, stopped at the end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that what follows is stopped too
    with (settings.folder("logs") / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "relevo", "up"],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | {SUPERVISOR_VARIABLE: str(os.getpid())},
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _first_client(settings: Settings, process: subprocess.Popen[bytes]) -> Client:
    deadline = monotonic() + START_WITHIN_SECONDS
    while monotonic() < deadline:
        if process.poll() is not None:
            said = (settings.root / "logs" / "up.log").read_text().strip()
            raise Unavailable(said.removeprefix("Error: ") or "`relevo up` ended.")
        if (settings.root / CREDENTIALS).exists():
            client = Client(credentials(settings))
            try:
                client.get("/api/models")
            except (Unavailable, NotAuthenticated):
                pass  # not up yet, or another one answers on this port: then `up` is about to say so and end
            else:
                return client
        sleep(0.05)
    raise Unavailable(f"Relevo did not answer within {START_WITHIN_SECONDS:.0f} s.", hint="See: relevo logs control")


def _cast(admin: Client) -> Cast:
    tokens = {}
    for name, role in (("maya", "engineer"), ("ruth", "reviewer"), ("airline", "application")):
        admin.post("/api/principals", {"name": name, "role": role})
        tokens[name] = admin.post("/api/tokens", {"principal": name, "note": "demo"})["token"]
    found = admin.credentials
    maya, ruth = (Client(Credentials(found.url, found.gateway, tokens[name])) for name in ("maya", "ruth"))
    return Cast(admin, maya, ruth, tokens["airline"])


def _board(example: Path) -> Any:
    """What the application asks, as its own package says; the demo plays that application."""
    sys.path.insert(0, str(example))
    from flight_delay.application import board  # type: ignore[import-not-found]

    return board()


def _first_release(cast: Cast, example: Path, progress: Progress) -> None:
    cast.admin.post(f"/api/models/{MODEL}/replay", {"at": BEGINS.isoformat()})
    progress.say("Maya applies the contract; the first model learns from January to March")
    applied = cast.engineer.post_bytes("/api/contracts", read_project(example), "application/zip")
    while True:
        release = _release(cast, applied["release"])
        if release is not None and release["state"] == "waiting_for_approval":
            _approve_what_waits(cast, progress)
        elif release is not None and release["state"] == "live":
            progress.events([release])
            return
        elif release is not None and release["state"] not in {"training", "shadow", "canary"}:
            raise RelevoError(f"The first release is {release['state']}: {release['outcome']}")
        progress.doing(_activities(cast))
        sleep(0.1)


async def _replay(cast: Cast, board: Any, ends: datetime, progress: Progress) -> Tally:
    """Advance event time tick by tick: the application asks and reports, then the windows that ended are judged."""
    url = f"{cast.admin.credentials.gateway}/endpoints/{MODEL}"
    async with open_session(cast.application_token) as session:
        traffic = Traffic(session, url, board)
        at, is_busy = BEGINS, True
        while at < ends + SETTLES_AFTER:
            until = at + TICK
            await asyncio.to_thread(cast.admin.post, f"/api/models/{MODEL}/replay/advance", {"at": until.isoformat()})
            if at < ends:
                await traffic.ask(at, min(until, ends))
            await traffic.report(until)
            is_busy = await asyncio.to_thread(_settle, cast, progress, is_busy)
            at = until
            progress.advance(at, (at - BEGINS) / (ends + SETTLES_AFTER - BEGINS), traffic.tally)
    return traffic.tally


def _settle(cast: Cast, progress: Progress, is_busy: bool) -> bool:
    """Say that all events of this tick are sent, and wait until whatever that started has caught up.

    Gives whether anything is still under way, such as a canary; only a window that is due can start something else.
    """
    watches = cast.admin.post(f"/api/models/{MODEL}/replay/settle")["watches"]
    if not watches and not is_busy:
        return False
    while True:
        activities = cast.admin.get("/api/activity")
        if any(activity["text"].startswith("approval of") for activity in activities):
            _approve_what_waits(cast, progress)
        elif not any(activity["state"] == "working" for activity in activities):
            progress.events(cast.admin.get("/api/releases", model=MODEL))
            progress.doing(activities)
            return bool(activities)
        progress.doing(activities)
        sleep(0.05)


def _approve_what_waits(cast: Cast, progress: Progress) -> None:
    """Ruth reads the evidence of each release that waits, and approves it: its gates have passed."""
    for release in cast.reviewer.get("/api/releases", state="waiting_for_approval"):
        shown = cast.reviewer.get(f"/api/releases/{release['id']}")
        if shown["approvals"]:
            continue
        gates = "; ".join(gate["message"] for gate in shown["evidence"]["gates"])
        body = {"approved": True, "reason": f"All gates passed: {gates}"[:2000]}
        cast.reviewer.post(f"/api/releases/{release['id']}/decision", body)
        progress.say(f"Ruth approves version {release['version']}")


def _midnight_after(day: date) -> datetime:
    return datetime.combine(day + timedelta(days=1), time(), UTC)


def _release(cast: Cast, release_id: str) -> dict[str, Any] | None:
    releases: list[dict[str, Any]] = cast.admin.get("/api/releases", model=MODEL)
    return next((release for release in releases if release["id"] == release_id), None)


def _activities(cast: Cast) -> list[dict[str, Any]]:
    activities: list[dict[str, Any]] = cast.admin.get("/api/activity")
    return activities


def _complain(found: Figures) -> None:
    """A demo that lost something, or served what training does not see, must not look like one that did not.

    Raises:
        RelevoError: A prediction or a request was lost, or a served feature differs from what the sources give.
    """
    if found.parity.different or not found.parity.compared:
        raise RelevoError(
            f"{found.parity.different} of {found.parity.compared} served feature values differ from what the sources "
            "give.",
            hint=f"See them: relevo features parity {MODEL}",
        )
    if found.requests_failed or found.predictions_logged != found.predictions_acknowledged:
        raise RelevoError(
            f"{found.requests_failed} requests failed; {found.predictions_acknowledged} predictions were acknowledged "
            f"and {found.predictions_logged} logged. {' '.join(found.failures)}"
        )


def _stay(found: Credentials, process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait()
    except KeyboardInterrupt:
        return
    raise Unavailable(f"Relevo at {found.url} has stopped.", hint="See: relevo logs")
