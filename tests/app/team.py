"""The team behind the small project: copies of it under a model's name, and what its code was seen to do."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

from running import Relevo, eventually

PROJECT = Path(__file__).parent / "project"
#: Where event time stands when a model is applied: six weeks of parcels are known.
BEGINS = datetime(2024, 2, 12, tzinfo=UTC)
CANARY_MINUTES = 10
_trees = count(21)  # every challenger is a little different, so that its contract is


@dataclass(frozen=True)
class Project:
    """A copy of the project under a model's name, and the record of what its code did."""

    model: str
    folder: Path
    witness: Path

    def change(self, file: str, old: str, new: str) -> None:
        """Replace a piece of a file that is in it once."""
        path = self.folder / file
        text = path.read_text()
        assert text.count(old) == 1, f"{file} has {old!r} {text.count(old)} times"
        path.write_text(text.replace(old, new))

    def challenge(self, waits_for: str = "") -> None:
        """Declare another challenger; its fit waits for the file when one is named."""
        path = self.folder / "relevo.yaml"
        lines = path.read_text().splitlines()
        place = next(number for number, line in enumerate(lines) if "params:" in line)
        lines[place] = f'  params: {{n_estimators: {next(_trees)}, waits_for: "{waits_for}"}}'
        path.write_text("\n".join(lines) + "\n")

    def record(self) -> list[str]:
        """What the code did so far."""
        path = self.witness / "record"
        return path.read_text().splitlines() if path.exists() else []

    def let_go(self, name: str) -> None:
        """Let what waits for that file go on."""
        (self.witness / name).touch()


def copy_project(model: str, base: Path) -> Project:
    """The project under the name of that model, in that folder."""
    made = Project(model, base / "project", base)
    shutil.copytree(PROJECT, made.folder, ignore=shutil.ignore_patterns("__pycache__"))
    made.change("relevo.yaml", "model: parcels", f"model: {model}")
    made.change("parcels/witness.py", 'FOLDER = ""', f"FOLDER = {str(base)!r}")
    return made


def apply_next(relevo: Relevo, project: Project, waits_for: str = "") -> str:
    """Apply a challenger; gives the release that this started."""
    project.challenge(waits_for)
    return relevo.apply(project.folder)


def finish_canary(relevo: Relevo, project: Project, release: str) -> int:
    """Let event time go by, while somebody asks, until the release is live; gives its version."""
    now = relevo.event_at(project.model)

    def step() -> bool:
        nonlocal now
        now += timedelta(minutes=CANARY_MINUTES)
        relevo.advance(project.model, now)
        found = relevo.release(release)["release"]
        assert found["state"] in {"waiting_for_approval", "shadow", "canary", "live"}, found
        return bool(found["state"] == "live")

    eventually(step, f"{release} to be live")
    return int(relevo.release(release)["release"]["version"])
