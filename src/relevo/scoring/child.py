"""The child that scores chunks: ``python -m relevo.scoring.child``, in the environment of the version's own model.

One chunk at a time is in its memory, beside the model and the rows that feature views look up.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from relevo.contract.model import Source
from relevo.errors import Conflict
from relevo.platform.child import serve
from relevo.platform.encoding import parse, to_json
from relevo.platform.files import sync
from relevo.registry.bundles import read_manifest
from relevo.runtimes.columns import open_model
from relevo.scoring.answering import answers
from relevo.scoring.filling import Filler
from relevo.scoring.folder import PART_FACTS, RunFolder
from relevo.scoring.inputs import Reader
from relevo.scoring.model import ERROR, PREDICTION, ROW, VERSION, Chunk, OnError, Part, Run
from relevo.scoring.validation import Refusals, sent_columns, typed

JSON = dict[str, Any]


class ScoringChild:
    """What the child serves: ``open`` once, then ``score`` for each chunk."""

    def __init__(self) -> None:
        self._scorer: Scorer | None = None

    def open(self, output: str, bundle: str, sources: Sequence[JSON]) -> JSON:
        """Get ready for the run beside ``output``."""
        self._scorer = Scorer(RunFolder(Path(output)), Path(bundle), [parse(Source, each) for each in sources])
        return {}

    def score(self, chunk: JSON) -> JSON:
        """Write the part of a chunk; gives the ``Part``, or the row that ends the run as ``refused``."""
        if self._scorer is None:
            raise Conflict("score came before open")
        found: JSON = to_json(self._scorer.score(parse(Chunk, chunk)))
        return found


class Scorer:
    """Scores chunks of one run. Not thread-safe.

    Args:
        folder: The run's.
        bundle: Folder of the verified bundle.
        sources: Of the views that are looked up.
    """

    def __init__(self, folder: RunFolder, bundle: Path, sources: Sequence[Source]) -> None:
        manifest = read_manifest(bundle)
        self._folder = folder
        self._run: Run = folder.read()
        self._signature = manifest.signature
        self._outputs = len(manifest.signature.classes) if len(manifest.signature.classes) > 2 else 1
        self._reader = Reader(self._run.input, folder.copied, folder.read_schema())
        self._columns = sent_columns(manifest.signature, self._reader.schema.names())
        sent = {column.name for column in self._columns}
        self._filler = Filler(manifest, sent, sources, folder.sources)
        self._model = open_model(bundle, manifest)

    def score(self, chunk: Chunk) -> Part | JSON:
        """Answer the rows of a chunk and write its part, whole or not at all."""
        rows = self._reader.read(chunk)
        if rows.height != chunk.rows:
            raise Conflict(f"Rows {chunk.first} to {chunk.first + chunk.rows} of the input are not there any more.")
        asked, refusals = typed(rows, self._columns, self._signature, self._run.plan.as_of)
        inputs, refusals = self._filler.fill(asked, refusals)
        predictions, refusals = answers(self._model, inputs, refusals, outputs=self._outputs)
        failed = rows.height - refusals.message.null_count()
        first_error = _first(chunk, refusals) if failed else None
        if first_error is not None and self._run.on_error is OnError.FAIL:
            return {"refused": first_error[0], "field": first_error[1]}
        part = Part(rows.height, failed, None if first_error is None else first_error[0])
        self._write(chunk, rows, predictions, refusals, part)
        return part

    def _write(self, chunk: Chunk, rows: pl.DataFrame, predictions: pl.Series, refusals: Refusals, part: Part) -> None:
        kept = rows if self._run.keep is None else rows.select(self._run.keep)
        added = [
            predictions.alias(PREDICTION),
            pl.repeat(self._run.plan.version, rows.height, dtype=pl.Int32, eager=True).alias(VERSION),
            pl.int_range(chunk.first, chunk.first + rows.height, dtype=pl.Int64, eager=True).alias(ROW),
        ]
        if self._run.on_error is OnError.NULL:
            added.append(refusals.message.alias(ERROR))
        facts = {PART_FACTS: json.dumps({"run": self._run.id, **to_json(part)})}
        draft = self._folder.draft(chunk.number)
        pl.DataFrame([*kept.get_columns(), *added]).write_parquet(draft, metadata=facts)
        sync(draft)
        draft.replace(self._folder.part(chunk.number, self._run.format))


def _first(chunk: Chunk, refusals: Refusals) -> tuple[str, str | None]:
    """The first refused row in words, and the column that is wrong."""
    place = int(refusals.message.is_not_null().arg_max() or 0)
    field, message = refusals.field[place] or None, refusals.message[place]
    column = "" if field is None else f", column {field!r}"
    return f"Row {chunk.first + place}{column}: {message}.", field


if __name__ == "__main__":
    child = ScoringChild()
    serve({"open": child.open, "score": child.score})
