"""The folder of one run: what each step left for the next. A step's JSON is there only when the step is done."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from relevo.errors import NotFound
from relevo.platform.encoding import parse, to_json
from relevo.training.model import Run


class RunFolder:
    """Files of a run, read and written by its children and by the service."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    @property
    def rows(self) -> Path:
        """The training set, fitted and held out rows alike."""
        return self.path / "rows.parquet"

    @property
    def model(self) -> Path:
        """The fitted model; read in children only."""
        return self.path / "model.pkl"

    @property
    def answers(self) -> Path:
        """What the model answers for the held-out rows, a NumPy array."""
        return self.path / "answers.npy"

    @property
    def bundle(self) -> Path:
        """The packed candidate."""
        return self.path / "bundle"

    def write(self, name: str, value: object) -> dict[str, Any]:
        """``value`` as plain JSON, written to ``name``.json whole or not at all."""
        built: dict[str, Any] = to_json(value)
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = self.path / f".{name}.json.{os.getpid()}"
        temporary.write_text(json.dumps(built, indent=1, sort_keys=True))
        temporary.replace(self.path / f"{name}.json")
        return built

    def read(self, name: str) -> dict[str, Any]:
        """What the step ``name`` found.

        Raises:
            NotFound: When it has not been done.
        """
        try:
            built: dict[str, Any] = json.loads((self.path / f"{name}.json").read_text())
        except FileNotFoundError as error:
            raise NotFound(f"Run {self.path.name} has no {name}.json: that step is not done.") from error
        return built

    def run(self) -> Run:
        """What the run was asked to do."""
        return parse(Run, self.read("run"))

    def clear(self) -> None:
        """Delete rows and model once the bundle is sealed; what was found stays."""
        self.rows.unlink(missing_ok=True)
        self.model.unlink(missing_ok=True)
        self.answers.unlink(missing_ok=True)
