"""The team behind the small project: copies of it under a model's name, and what its code was seen to do."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

PROJECT = Path(__file__).parent / "project"
#: Where event time stands when a model is applied: six weeks of parcels are known.
BEGINS = datetime(2024, 2, 12, tzinfo=UTC)


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

    def train_with(self, trees: int, waits_for: str = "") -> None:
        """Declare a challenger of that many trees; its fit waits for the file when one is named."""
        path = self.folder / "relevo.yaml"
        lines = path.read_text().splitlines()
        place = next(number for number, line in enumerate(lines) if "params:" in line)
        lines[place] = f'  params: {{n_estimators: {trees}, waits_for: "{waits_for}"}}'
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
