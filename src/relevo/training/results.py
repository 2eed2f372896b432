"""What the earlier steps of a run left, read back for the last ones. Runs in child processes only."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
from numpy.typing import NDArray

from relevo.platform.encoding import parse
from relevo.runtimes.model import Signature
from relevo.training import evaluation, fitting
from relevo.training.folder import RunFolder
from relevo.training.model import Run
from relevo.training.rows import IS_HELD_OUT, Built


class Result:
    """A fitted and evaluated run."""

    def __init__(self, run: Run, folder: RunFolder) -> None:
        rows = pl.read_parquet(folder.rows)
        self.built = parse(Built, folder.read("built"))
        self.fitted = rows.filter(~pl.col(IS_HELD_OUT))
        self.held_out = evaluation.held_out(rows)
        self.model = fitting.load(folder.model, run.package)
        self.evaluation = parse(evaluation.Evaluation, folder.read("evaluation"))
        self.sources = folder.read("sources")
        self.params: dict[str, object] = folder.read("fitted")["params"]
        self.answers: NDArray[np.float64] = np.load(folder.answers)

    @property
    def signature(self) -> Signature:
        """Of the model."""
        return self.built.signature

    def frame(self, rows: pl.DataFrame) -> pd.DataFrame:
        """Rows as the model sees them."""
        return fitting.inputs_of(rows, self.signature, fitting.categories(self.fitted, self.signature))
