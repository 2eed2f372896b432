"""What the demo shows while it runs: the date of the replay, the traffic, and what has just happened."""

from __future__ import annotations

import time
from collections import deque
from datetime import datetime
from typing import Any, Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from relevo.cli.demo.traffic import Tally
from relevo.cli.terminal import console

LAST_LINES = 8
STATES = {
    "live": "is live",
    "rejected": "stays a candidate",
    "rolled_back": "was rolled back",
    "failed": "failed",
    "shadow": "answers copies of the traffic",
    "canary": "takes its first traffic",
}


class Progress:
    """A live view on a terminal; plain lines where there is none."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._lines: deque[Text] = deque(maxlen=LAST_LINES)
        self._seen: set[tuple[str, str]] = set()
        self._at: datetime | None = None
        self._share = 0.0
        self._tally = Tally()
        self._doing = ""
        self._live = Live(get_renderable=self._view, console=console, refresh_per_second=5, transient=True)

    def __enter__(self) -> Self:
        if console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the live view."""
        if self._live.is_started:
            self._live.stop()

    def say(self, line: str) -> None:
        """A thing that happened."""
        seconds = time.monotonic() - self._began
        date = f"{self._at:%d %b %Y}" if self._at else ""
        text = Text.assemble((f"{seconds:5.0f} s  {date:12}", "dim"), line)
        self._lines.append(text)
        if not console.is_terminal:
            console.print(text, soft_wrap=True)

    def advance(self, at: datetime, share: float, tally: Tally) -> None:
        """Event time has moved."""
        self._at, self._share, self._tally = at, min(share, 1.0), tally

    def doing(self, activities: list[dict[str, Any]]) -> None:
        """What workflows do now."""
        self._doing = "; ".join(activity["text"] for activity in activities if activity["text"])[:160]

    def events(self, releases: list[dict[str, Any]]) -> None:
        """Say what became of each release, once."""
        for release in reversed(releases):
            key = (release["id"], release["state"])
            if release["state"] in STATES and key not in self._seen:
                self._seen.add(key)
                why = "" if release["state"] in {"live", "shadow", "canary"} else f": {release['outcome']}"
                self.say(f"Version {release['version']} {STATES[release['state']]}{why}")

    def _view(self) -> RenderableType:
        facts = Table.grid(padding=(0, 3))
        facts.add_row(
            Text(f"{self._at:%A %d %B %Y}" if self._at else "", style="bold"),
            f"{self._tally.predictions:,} predictions",
            f"{self._tally.labels:,} labels",
            Text(f"{self._tally.failed:,} failed", style="red" if self._tally.failed else "dim"),
        )
        now = Text(self._doing, style="cyan", overflow="ellipsis", no_wrap=True)
        bar = Table.grid()
        bar.add_row(ProgressBar(total=1.0, completed=self._share, width=72))
        return Group(*self._lines, Text(), facts, bar, now)
