import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "console")]

PACKAGE = """
import pandas as pd
import polars as pl
import pyarrow as pa
from datetime import UTC, datetime, timedelta

START = datetime(2026, 1, 1, tzinfo=UTC)
ROWS = pl.DataFrame({
    "id": ["b", "a", "c", "d"],
    "at": [START + timedelta(hours=hour) for hour in (1, 0, 2, 3)],
    "known_at": [
        START + timedelta(hours=1), START + timedelta(hours=5), START + timedelta(hours=1), None],
    "x": [1.0, float("nan"), None, 4.0],
})

def lazy(): return ROWS.lazy()
def frame(): return ROWS
def shuffled(): return ROWS.reverse().select("x", "known_at", "at", "id")
def changed(): return ROWS.with_columns(x=pl.lit(9.0))
def pandas_frame(): return ROWS.to_pandas()
def arrow(): return ROWS.to_arrow()
def a_list(): return [1]
def empty(): return ROWS.clear()
def naive(): return ROWS.with_columns(pl.col("at").dt.replace_time_zone(None))
def text_time(): return ROWS.with_columns(pl.col("at").cast(pl.String))
def repeated(): return pl.concat([ROWS, ROWS.head(2)])
def corrected(): return pl.concat([ROWS, ROWS.with_columns(at=pl.col("at") + pl.duration(days=1))])
def nameless(): return ROWS.with_columns(id=pl.lit(None, dtype=pl.String))
def elsewhere(): return ROWS.with_columns(pl.col("at").dt.convert_time_zone("America/New_York").dt.cast_time_unit("ns"))
def raises(): raise RuntimeError("the warehouse is closed")
def kinds(): return ROWS.with_columns(u=pl.lit(3, dtype=pl.UInt8), c=pl.Series(list("wxyz"), dtype=pl.Categorical),
    n=pl.lit(None), b=pl.lit(True), l=pl.Series([[1], [2, 3], [], None]), d=pl.lit(START).dt.date())

asked = []
def limited(*, until): asked.append(until); return ROWS
def incremental(since=None, until=None): asked.append((since, until)); return ROWS
def anything(**limits): asked.append(limits); return ROWS

import dataframely as dy
class Checks(dy.Schema):
    id = dy.String(primary_key=True)
    x = dy.Float64(nullable=True, max=3)
class WrongType(dy.Schema):
    id = dy.Int64()
def function(rows):
    if rows["x"].max() > 3:
        raise ValueError("x is above 3")
"""


@pytest.fixture
def package(tmp_path: Path):
    """A folder with a team's package ``rows``, and nothing of it left imported afterwards."""
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "rows.py").write_text(PACKAGE)
    yield folder
    sys.modules.pop("rows", None)
    sys.path.remove(str(folder))
