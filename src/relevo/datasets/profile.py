"""A version's profile: skrub's report over a bounded sample of its rows. Runs in child processes only."""

from __future__ import annotations

import html
import random
from dataclasses import dataclass

import polars as pl

#: Rows that a report is drawn from.
MAX_ROWS = 10_000

#: skrub draws for light and dark by the colour of the text around it.
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
body {{ margin: 1.2rem; font: 15px/1.5 system-ui, sans-serif; }}
h1 {{ font-size: 1.2rem; margin: 0; }}
p {{ margin: .2rem 0 1rem; opacity: .8; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{words}</p>
{report}
</body>
</html>
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows of a version, in its order, and of how many they are."""

    frame: pl.DataFrame
    of_rows: int

    @property
    def words(self) -> str:
        """Which rows these are."""
        if self.frame.height == self.of_rows:
            return f"All {self.of_rows:,} rows."
        return (
            f"A sample of {self.frame.height:,} of {self.of_rows:,} rows, drawn at random; the same content gives the "
            f"same sample."
        )


def sample(rows: pl.LazyFrame, seed: str, at_most: int = MAX_ROWS) -> Sample:
    """Each row with the same chance, without repetition, in the order of the table.

    Args:
        rows: A version; it is read twice, streaming, so that it need not fit into memory.
        seed: The same seed, such as the content's digest, gives the same rows.
        at_most: How many.
    """
    total = int(rows.select(pl.len()).collect(engine="streaming").item())
    if total <= at_most:
        return Sample(rows.collect(), total)
    chosen = sorted(random.Random(seed).sample(range(total), at_most))
    numbers = pl.LazyFrame({"number": pl.Series(chosen, dtype=pl.UInt32)})
    numbered = rows.with_row_index("relevo row")
    found = numbered.join(numbers, left_on="relevo row", right_on="number", how="semi").collect(engine="streaming")
    return Sample(found.sort("relevo row").drop("relevo row"), total)


def report(found: Sample, title: str) -> str:
    """A page that stands alone: HTML with its styles, scripts and pictures inside.

    Args:
        found: The rows.
        title: Above the report.
    """
    from skrub import TableReport

    drawn: str = TableReport(found.frame, verbose=0).html_snippet()
    return _PAGE.format(title=html.escape(title), words=html.escape(found.words), report=drawn)
