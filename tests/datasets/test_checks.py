"""What is done about rows that fail a check, and what is kept of each rule."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from relevo.contract.model import Source
from relevo.datasets.checks import run_checks
from relevo.datasets.child import load
from relevo.datasets.model import CheckResult, LoadedDataset
from relevo.datasets.tables import scan_version
from relevo.errors import Invalid
from relevo.platform.encoding import parse, to_json

PACKAGE = """
import dataframely as dy
import polars as pl

ROWS = pl.DataFrame({"id": ["a", "b", "c", "d"], "x": [1.0, 4.0, -1.0, None], "note": ["p", "q", "r", "s"]})
GIVEN = [ROWS]
def rows(): return GIVEN[0]

class Whole(dy.Schema):
    id = dy.String(primary_key=True)
    x = dy.Float64(nullable=True, max=3)
    @dy.rule()
    def positive(cls): return pl.col("x") > 0
class Keyless(dy.Schema):
    x = dy.Float64(nullable=True, max=3)
class Other(dy.Schema):
    y = dy.Float64()

def mask(rows): return rows["x"] > 3
def frame(rows): return rows.filter(pl.col("x") > 3).select("note", "id")
def lazy(rows): return rows.lazy().filter(pl.col("x") > 3)
def several(rows): return {"high": rows["x"] > 3, "low": rows.filter(pl.col("x") < 0), "fine": None}
def fine(rows): return None
def raises(rows): raise ValueError("x is odd")
def everything(rows): return rows
def wrong_length(rows): return pl.Series([True])
def wrong_type(rows): return 3
def wrong_columns(rows): return pl.DataFrame({"z": [1]})
NOT_A_CHECK = 7
"""


@pytest.fixture
def package(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "own.py").write_text(PACKAGE)
    yield folder
    sys.modules.pop("own", None)
    sys.path.remove(str(folder))


def _source(check: str | None, on_failure: Any = "quarantine") -> Source:
    checks = None if check is None else f"own:{check}"
    return Source(name="rows", loader="own:rows", key=("id",), checks=checks, on_failure=on_failure)


def _rows() -> pl.DataFrame:
    return pl.DataFrame({"id": ["a", "b", "c", "d"], "x": [1.0, 4.0, -1.0, None], "note": ["p", "q", "r", "s"]})


def _load(package: Path, source: Source) -> dict[str, Any]:
    return load(to_json(source), str(package), None, str(package.parent / "tables"))


@pytest.mark.parametrize("check", ["mask", "frame", "lazy", "Keyless"])
def test_each_kind_of_check_finds_the_same_row(check: str, package: Path) -> None:
    checked = run_checks(_source(check), package, _rows())
    assert checked.kept["id"].to_list() == ["a", "c", "d"]
    assert checked.quarantined is not None
    assert checked.quarantined.drop("__failed_rules").equals(_rows()[1:2])
    rule = "x|max" if check == "Keyless" else check
    assert checked.quarantined["__failed_rules"].to_list() == [rule]
    (result,) = [each for each in checked.results if each.failed]
    assert (result.rule, result.failed, result.rows, result.action) == (rule, 1, 4, "quarantine")
    assert result.sample[0].startswith("{id: b, x: 4.0")


def test_a_row_is_kept_apart_once_with_every_rule_that_it_fails(package: Path) -> None:
    checked = run_checks(_source("Whole"), package, _rows().with_columns(x=pl.Series([1.0, 4.0, -1.0, 1.0])))
    assert checked.quarantined is not None
    assert checked.quarantined.select("id", "__failed_rules").rows() == [("b", "x|max"), ("c", "positive")]
    several = run_checks(_source("several"), package, _rows())
    assert [(each.rule, each.failed) for each in several.results] == [("high", 1), ("low", 1), ("fine", 0)]
    assert several.kept["id"].to_list() == ["a", "d"]


@pytest.mark.parametrize("check", ["Whole", "fine"])
@pytest.mark.parametrize("action", ["fail", "quarantine", "warn"])
def test_every_rule_is_kept_when_all_pass(check: str, action: str, package: Path) -> None:
    checked = run_checks(_source(check, action), package, _rows().head(1))
    expected = (
        {"x|max", "x|nan", "x|inf", "id|nullability", "primary_key", "positive"} if check == "Whole" else {"fine"}
    )
    assert {result.rule for result in checked.results} == expected
    assert all((each.failed, each.rows, each.sample, each.action) == (0, 1, (), action) for each in checked.results)
    assert (checked.kept.height, checked.quarantined) == (1, None)


def test_without_checks_nothing_is_judged(package: Path) -> None:
    sys.path.append(str(package))
    assert run_checks(_source(None), package, _rows()).results == ()


def test_a_warning_keeps_the_rows_and_says_so(package: Path) -> None:
    loaded = _load(package, _source("mask", "warn"))
    assert (loaded["rows"], loaded["quarantined"], loaded["quarantine_version"]) == (4, 0, None)
    expected = CheckResult("mask", 1, 4, ("{id: b, x: 4.0, note: q}",), "warn")
    assert parse(LoadedDataset, loaded).checks == (expected,)


def test_a_failure_stops_the_load(package: Path) -> None:
    with pytest.raises(
        Invalid, match=r"checks own:several: high fails on 1 of 4 rows, for example {id: b.*\. low fails on"
    ):
        _load(package, _source("several", "fail"))
    assert not (package.parent / "tables").exists()


def test_quarantined_rows_are_in_a_table_of_their_own(package: Path) -> None:
    loaded = _load(package, _source("several"))
    assert (loaded["rows"], loaded["quarantined"], loaded["quarantine_version"]) == (2, 2, 0)
    tables = package.parent / "tables"
    assert scan_version(tables, "rows", 0).collect()["id"].to_list() == ["a", "d"]
    apart = scan_version(tables, "rows__quarantine", 0).collect()
    assert apart.select("id", "__failed_rules").rows() == [("b", "high"), ("c", "low")]
    again = _load(package, _source("several"))
    assert (again["version"], again["quarantine_version"], again["is_new"]) == (0, 0, False)


@pytest.mark.parametrize("action", ["fail", "quarantine", "warn"])
def test_a_check_that_raises_stops_the_load_whatever_is_declared(action: str, package: Path) -> None:
    with pytest.raises(ValueError, match="x is odd"):
        _load(package, _source("raises", action))


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ("everything", "source rows: all 4 rows fail the checks, so nothing is left to keep"),
        (
            "wrong_length",
            "should return None, a boolean Series of 4 values, .* got a Series of 1 values of type Boolean",
        ),
        ("wrong_type", "a frame with id, or a dictionary of these by rule; got int"),
        ("wrong_columns", "got a frame of z"),
        ("NOT_A_CHECK", "own:NOT_A_CHECK should be a dataframely schema or a function"),
        ("Other", "checks own:Other: 1 missing columns for schema 'Other': 'y'"),
        ("Lost", "own has no 'Lost'"),
    ],
)
def test_a_check_that_is_none_is_told(check: str, message: str, package: Path) -> None:
    with pytest.raises(Invalid, match=message):
        _load(package, _source(check))
