import sys
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from relevo.contract.model import Source
from relevo.datasets.child import load
from relevo.datasets.loading import read_source
from relevo.datasets.tables import content_digest, scan_version
from relevo.errors import Invalid, NotFound
from relevo.platform.encoding import to_json

START = datetime(2026, 1, 1, tzinfo=UTC)
LATER = "2026-02-01T00:00:00+00:00"


def source(loader: str, **changes) -> Source:
    return Source(**{"name": "rows", "loader": f"rows:{loader}", "key": ("id",), "event_time": "at", **changes})


def load_from(loader: str, package, until: str | None = LATER, **changes) -> dict:
    return load(to_json(source(loader, **changes)), str(package), until, str(package.parent / "tables"))


@pytest.mark.parametrize("loader", ["lazy", "frame", "shuffled", "pandas_frame", "arrow"])
def test_each_kind_of_table_gives_the_same_rows(loader, package):
    rows = read_source(source(loader), package)
    assert rows["id"].to_list() == ["a", "b", "c", "d"]
    assert rows["x"].to_list() == [None, 1.0, None, 4.0]
    assert rows.schema["at"] == pl.Datetime("us", "UTC")
    assert content_digest(rows) == content_digest(read_source(source("lazy"), package))


def test_times_of_another_zone_and_unit_become_utc(package):
    assert read_source(source("elsewhere"), package)["at"].to_list()[0] == START


def test_a_row_counts_when_it_has_happened_and_is_known(package):
    declared = source("frame", known_time="known_at")
    known = [
        (hour, read_source(declared, package, until=START + timedelta(hours=hour))["id"].to_list()) for hour in range(6)
    ]
    assert known == [(0, []), (1, ["b"]), (2, ["b", "c"]), (3, ["b", "c"]), (4, ["b", "c"]), (5, ["a", "b", "c"])]
    late = read_source(declared, package, since=START + timedelta(hours=1), until=START + timedelta(hours=2))
    assert late["id"].to_list() == ["c"]


@pytest.mark.parametrize(
    ("loader", "expected"),
    [("limited", START), ("incremental", (None, START)), ("anything", {"since": None, "until": START})],
)
def test_a_loader_is_given_the_limits_that_it_takes(loader, expected, package):
    read_source(source(loader), package, until=START)
    assert sys.modules["rows"].asked == [expected]


@pytest.mark.parametrize(
    ("loader", "changes", "message"),
    [
        ("a_list", {}, "should give a Polars, pandas or Arrow table, got list"),
        ("empty", {}, "gave no rows that were known at 2026-02-01"),
        ("naive", {}, "column 'at' holds naive times"),
        ("text_time", {}, "event_time column 'at' should hold aware datetimes, got String"),
        ("repeated", {}, "2 of 6 rows repeat another row's at and id, for example {at: 2026"),
        ("corrected", {"event_time": None}, "4 of 8 rows repeat another row's id"),
        ("nameless", {}, "4 of 4 rows have no 'id'"),
        ("frame", {"event_time": "att"}, "event_time column 'att' .* did you mean 'at'"),
        ("frame", {"known_time": "known"}, "known_time column 'known' .* did you mean 'known_at'"),
        ("frame", {"key": ("ID", "i")}, "the key column 'ID'"),
        ("fram", {}, "rows has no 'fram'; did you mean 'frame'"),
        ("frame", {"checks": "rows:Checks"}, r"x\|max fails on 1 of 4 rows, for example {at: .*, id: d, x: 4.0}"),
        ("frame", {"checks": "rows:WrongType"}, "1 columns with invalid dtype"),
    ],
)
def test_what_a_loader_may_not_give_is_named(loader, changes, message, package):
    with pytest.raises(Invalid, match=message):
        load_from(loader, package, **changes)
    assert not (package.parent / "tables").exists()


def test_events_of_one_key_at_different_times_are_different_rows(package):
    assert load_from("corrected", package)["rows"] == 8


def test_a_key_may_name_the_event_time_itself(package):
    assert read_source(source("corrected", key=("at", "id")), package).height == 8


def test_errors_of_the_team_come_through_as_they_are(package):
    with pytest.raises(RuntimeError, match="the warehouse is closed"):
        load_from("raises", package)
    with pytest.raises(ValueError, match="x is above 3"):
        load_from("frame", package, checks="rows:function")


def test_the_same_content_makes_no_new_version(package):
    first = load_from("lazy", package)
    assert (first["version"], first["is_new"], first["rows"]) == (0, True, 4)
    again = load_from("shuffled", package)
    assert (again["version"], again["is_new"], again["digest"]) == (0, False, first["digest"])
    changed = load_from("changed", package)
    assert (changed["version"], changed["is_new"]) == (1, True)
    back = load_from("lazy", package)
    assert (back["version"], back["digest"]) == (2, first["digest"])


def test_versions_stay_readable_and_known_through_is_that_of_the_rows(package):
    early = load_from("frame", package, until="2026-01-01T04:00:00+00:00", known_time="known_at")
    late = load_from("frame", package, known_time="known_at")
    assert (early["rows"], early["known_through"]) == (2, "2026-01-01T02:00:00Z")
    assert (late["rows"], late["known_through"]) == (3, "2026-01-01T05:00:00Z")
    tables = package.parent / "tables"
    assert scan_version(tables, "rows", 0).collect()["id"].to_list() == ["b", "c"]
    assert scan_version(tables, "rows", 1).collect()["id"].to_list() == ["a", "b", "c"]
    with pytest.raises(NotFound, match="no version 7"):
        scan_version(tables, "rows", 7)
    with pytest.raises(NotFound, match="no version 0"):
        scan_version(tables, "none", 0)


def test_a_source_without_times_is_loaded_whole(package):
    loaded = load_from("frame", package, until=None, event_time=None)
    assert (loaded["rows"], loaded["known_through"]) == (4, None)


def test_every_kind_of_column_is_kept(package):
    loaded = load_from("kinds", package)
    assert (
        loaded["columns"]["u"] == "Int64" and loaded["columns"]["c"] == "String" and loaded["columns"]["n"] == "String"
    )
    rows = scan_version(package.parent / "tables", "rows", 0).collect()
    assert rows["l"].to_list() == [[2, 3], [1], [], None]


def test_the_digest_tells_a_null_from_a_zero_and_text_from_its_split():
    def one(values, kind=pl.Int64):
        return content_digest(pl.DataFrame({"x": pl.Series(values, dtype=kind)}))

    assert one([0]) != one([None])
    assert one(["ab", ""], pl.String) != one(["a", "b"], pl.String)
    assert one(["", None], pl.String) != one([None, ""], pl.String)
    assert one([1]) != one([1], pl.Int32)
    assert one([1, 2]) != one([2, 1])
