"""What a run leaves on the disk: its record beside the output, what it looks up, and parts that are whole or not there.

Beside ``OUTPUT`` lies ``OUTPUT.run`` until the end with everything that a resumed run needs; then only its record.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from relevo.errors import Conflict, Corrupted
from relevo.platform.encoding import canonical, parse
from relevo.scoring.model import Format, Part, Run

#: Key of a part's metadata: the run, how many rows it has, how many of them failed.
PART_FACTS = "relevo"


class RunFolder:
    """The files of one run.

    Args:
        output: The output; it need not exist yet.
    """

    def __init__(self, output: Path) -> None:
        self.output = output.absolute()
        self.root = self.output.with_name(f"{self.output.name}.run")
        self.copied = self.root / "input"
        self.sources = self.root / "sources"
        self._record = self.root / "run.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run: one command at a time.

        Raises:
            Conflict: Another command holds it.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict(f"Another command scores into {self.output} at the moment.") from None
            yield

    @property
    def has_begun(self) -> bool:
        """Whether a run is recorded."""
        return self._record.exists()

    def read(self) -> Run:
        """The recorded run."""
        try:
            return parse(Run, json.loads(self._record.read_bytes()))
        except ValueError as error:
            message = f"{self._record} is not the record of a run: {error}."
            raise Corrupted(message, hint=f"Delete {self.root} and {self.output} to begin anew.") from None

    def write(self, run: Run) -> None:
        """Record the run, whole or not at all."""
        _write(self._record, canonical(run))

    def read_schema(self) -> pl.Schema:
        """Columns and types of the input."""
        return pl.Schema(pl.read_parquet_schema(self.root / "schema.parquet"))

    def write_schema(self, schema: pl.Schema) -> None:
        """Keep columns and types of the input for the children."""
        draft = self.root / "schema.writing"
        pl.DataFrame(schema=schema).write_parquet(draft)
        draft.replace(self.root / "schema.parquet")

    def parts(self, format: Format) -> Path:  # noqa: A002 - the word of the command
        """The folder of the parts: the output itself, or where a Delta table's rows wait for its one commit."""
        return self.output if format is Format.PARQUET else self.root / "parts"

    def part(self, number: int, format: Format) -> Path:  # noqa: A002
        """The place of a part; their names have the order of the rows."""
        return self.parts(format) / f"part-{number:06}.parquet"

    def draft(self, number: int) -> Path:
        """Where a part is written before it is moved to its place."""
        return self.root / f"part-{number:06}.{os.getpid()}.writing"

    def done(self, run: Run) -> dict[int, Part]:
        """The parts that are there, by number.

        Raises:
            Conflict: A file among them is not of this run.
        """
        found: dict[int, Part] = {}
        for path in sorted(self.parts(run.format).glob("*")):
            number = path.stem.removeprefix("part-")
            facts = json.loads(_facts(path)) if number.isdecimal() and path.suffix == ".parquet" else {}
            if facts.pop("run", None) != run.id:
                raise Conflict(f"{path} is not of this run; take it away, or score into another folder.")
            found[int(number)] = parse(Part, facts)
        return found

    def clear_drafts(self) -> None:
        """Delete what children left that died while they wrote."""
        for path in self.root.glob("*.writing"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def clear(self) -> None:
        """Delete everything but the record."""
        for folder in (self.copied, self.sources, self.root / "parts"):
            shutil.rmtree(folder, ignore_errors=True)
        (self.root / "schema.parquet").unlink(missing_ok=True)

    def forget(self) -> None:
        """Delete the record, too: the output is free again."""
        shutil.rmtree(self.root)


def _facts(path: Path) -> str:
    try:
        return pl.read_parquet_metadata(path).get(PART_FACTS, "{}")
    except (pl.exceptions.PolarsError, OSError):
        return "{}"


def _write(path: Path, content: bytes) -> None:
    draft = path.with_suffix(".writing")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
