"""New projects validate, describe themselves and load in a child, as they are."""

from __future__ import annotations

import csv
import random
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from relevo.contract.model import Task
from relevo.contract.parsing import parse_contract
from relevo.contract.policy import views_of
from relevo.contract.scaffold import write_project, write_project_from_csv
from relevo.contract.service import ContractService
from relevo.contract.table import inspect_table
from relevo.contract.upload import read_project
from relevo.errors import Conflict, Invalid
from relevo.identity.model import Principal

only_sqlite = pytest.mark.parametrize("empty_state", ["sqlite"], indirect=True)
NOW = datetime(2026, 5, 1, tzinfo=UTC)

_LOAD = """
import sys, importlib, dataclasses
package, loader, checks, until = sys.argv[1:5]
module = importlib.import_module(f"{package}.sources")
import datetime
rows = getattr(module, loader)(**({"until": datetime.datetime.fromisoformat(until)} if until else {}))
if checks:
    getattr(importlib.import_module(f"{package}.checks"), checks).validate(rows)
rows.write_parquet(sys.argv[5])
"""


def _load(folder: Path, package: str, loader: str, checks: str = "", until: datetime | None = None) -> pl.DataFrame:
    """What a loader of the project gives, called in a process of its own."""
    out = folder / "out.parquet"
    arguments = [package, loader, checks, until.isoformat() if until else "", str(out)]
    command = [sys.executable, "-W", "error", "-c", _LOAD, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return pl.read_parquet(out)


def _csv(path: Path, header: list[str], rows: list[list[object]], separator: str = ",") -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=separator).writerows([header, *rows])
    return path


def _customers(n: int = 300) -> list[list[object]]:
    draw = random.Random(3)
    plans = ["basic", "plus", "pro"]
    return [
        [1000 + i, draw.choice(plans), draw.randint(18, 90), "" if i % 9 == 0 else round(draw.random(), 3), i % 4 == 0]
        for i in range(n)
    ]


CUSTOMERS = ["customer_id", "plan", "age", "Use (share), weekly", "left"]


@only_sqlite
def test_a_new_project_runs_as_it_is(contracts: ContractService, engineer: Principal, tmp_path: Path) -> None:
    folder = tmp_path / "late-orders"
    write_project("late-orders", folder, now=NOW)

    change = contracts.apply(read_project(folder), engineer)

    applied = contracts.current("late-orders")
    assert change.is_applied
    assert [view.name for view in views_of(applied.description)] == ["courier_lately", "depot_lately"]
    assert applied.contract.label.available_after.total_seconds() == 6 * 3600
    orders = _load(folder, "late_orders", "orders", "Orders", NOW)
    assert orders["order_id"].is_unique().all()
    assert orders["ordered_at"].min() >= datetime(2026, 1, 1, tzinfo=UTC)
    assert set(applied.contract.ask.inputs) <= set(orders.columns)
    assert 0.1 < orders["is_late"].mean() < 0.4
    assert len(_load(folder, "late_orders", "deliveries", until=NOW)) == len(orders)


def test_the_made_up_past_stays_what_it_was(tmp_path: Path) -> None:
    write_project("late-orders", tmp_path / "p", now=NOW)
    early = _load(tmp_path / "p", "late_orders", "orders", until=NOW)
    later = _load(tmp_path / "p", "late_orders", "orders", until=datetime(2026, 5, 20, tzinfo=UTC))
    assert early["delivered_at"].max() <= NOW
    assert later.filter(later["delivered_at"] <= NOW).equals(early)
    assert len(later) > len(early)


@only_sqlite
def test_a_project_from_a_file_runs_as_it_is(contracts: ContractService, engineer: Principal, tmp_path: Path) -> None:
    path = _csv(tmp_path / "customers.csv", CUSTOMERS, _customers())
    folder = tmp_path / "churn"

    write_project_from_csv("churn", path, "left", folder)
    contracts.apply(read_project(folder), engineer)

    contract = contracts.current("churn").contract
    assert (contract.task, contract.label.column) == (Task.CLASSIFICATION, "left")
    assert contract.source("rows").key == ("customer_id",)
    assert contract.ask.inputs == ("plan", "age", "Use_share_weekly")
    assert contract.ask.at is None
    assert [gate.rule for gate in contract.gates if gate.rule] == ["metrics.log_loss < baseline.log_loss"]
    rows = _load(folder, "churn", "rows", "Rows")
    assert rows.columns == ["customer_id", "plan", "age", "Use_share_weekly", "left"]
    assert rows["Use_share_weekly"].null_count() == 34
    assert (folder / "churn" / "data.csv").read_bytes() == path.read_bytes()
    assert "`Use (share), weekly` is called `Use_share_weekly`." in (folder / "README.md").read_text()


def test_names_that_mean_something_elsewhere_do_no_harm(tmp_path: Path) -> None:
    header = ["filter", "2nd", "class", "no", "größe", "a b", "a_b", "row", "_x", "const", "when", 'qu"ote', "y"]
    draw = random.Random(5)
    rows = [
        [*(draw.randint(0, 5) for _ in range(9)), 1, f"2026-01-01 00:00:{i}", draw.choice(["k", "l"]), draw.random()]
        for i in range(120)
    ]
    table = write_project_from_csv("json", _csv(tmp_path / "odd.csv", header, rows, ";"), "y", tmp_path / "odd")
    assert table.task is Task.REGRESSION
    assert table.key == "row_number"
    contract = parse_contract((tmp_path / "odd" / "relevo.yaml").read_text())
    assert contract.package == "json_model"
    assert contract.ask.inputs == (*("filter", "c_2nd", "class_", "no", "größe", "a_b", "a_b_", "row", "x", "qu_ote"),)
    assert [gate.rule for gate in contract.gates if gate.rule] == ["metrics.rmse < baseline.rmse"]
    loaded = _load(tmp_path / "odd", "json_model", "rows", "Rows")
    assert loaded["row_number"].to_list() == list(range(120))
    assert set(contract.ask.inputs) | {"y"} <= set(loaded.columns)


@pytest.mark.parametrize(
    ("labels", "task", "n_classes"),
    [
        (["yes", "no"], Task.CLASSIFICATION, 2),
        (["a", "b", "c"], Task.CLASSIFICATION, 3),
        (["True", "False"], Task.CLASSIFICATION, 2),
        ([0, 1], Task.CLASSIFICATION, 2),
        ([1, 2, 3, 4, 5], Task.CLASSIFICATION, 5),
        (["1.0", "0.0", ""], Task.CLASSIFICATION, 2),
        (list(range(40)), Task.REGRESSION, 40),
        ([0.5, 1.5], Task.REGRESSION, 2),
    ],
)
def test_the_task_follows_from_the_label(tmp_path: Path, labels: list[object], task: Task, n_classes: int) -> None:
    rows = [[i % 7, labels[i % len(labels)]] for i in range(200)]
    folder = tmp_path / "p"
    table = write_project_from_csv("guess", _csv(tmp_path / "t.csv", ["x", "y"], rows), "y", folder)
    assert (table.task, table.n_classes) == (task, n_classes)
    assert parse_contract((folder / "relevo.yaml").read_text()).task is task


def test_whole_labels_that_the_file_writes_as_decimals_become_whole(tmp_path: Path) -> None:
    rows = [[i % 7, ["1.0", "0.0", ""][i % 3]] for i in range(200)]
    table = write_project_from_csv("guess", _csv(tmp_path / "t.csv", ["x", "y"], rows), "y", tmp_path / "p")
    assert table.label_is_whole
    loaded = _load(tmp_path / "p", "guess", "rows", "Rows")
    assert loaded["y"].dtype == pl.Int64
    assert loaded["y"].null_count() == 66


@pytest.mark.parametrize(
    ("header", "rows", "expected"),
    [
        (
            ["x", "left"],
            [[i, i % 2] for i in range(60)],
            "label: expected one of x, left, got 'lef'; did you mean 'left'",
        ),
        (["x", "lef"], [[i, 1] for i in range(60)], "label 'lef' is 1 in every row: there is nothing to learn"),
        (["x", "lef"], [[i, i % 2] for i in range(49)], "has 49 rows; expected at least 50"),
        (
            ["x", "lef"],
            [[i, i % 2 if i < 20 else ""] for i in range(60)],
            "label 'lef' is there in 20 rows; expected 50",
        ),
        (
            ["x", "lef"],
            [[i, f"text {i}"] for i in range(60)],
            "60 different values in 60 rows; expected classes or num",
        ),
        (
            ["x", "lef"],
            [[7, i % 2] for i in range(60)],
            "no column is left to predict 'lef' from. 'x' is left out: it ",
        ),
        (["x", "lef"], [], "has 0 rows; expected at least 50"),
    ],
)
def test_a_file_that_cannot_be_learned_from_is_refused(
    tmp_path: Path, header: list[str], rows: list[list[object]], expected: str
) -> None:
    path = _csv(tmp_path / "bad.csv", header, rows)
    with pytest.raises(Invalid) as caught:
        write_project_from_csv("churn", path, "lef", tmp_path / "churn")
    assert expected in caught.value.message
    assert not (tmp_path / "churn").exists()


def test_dates_are_no_categories(tmp_path: Path) -> None:
    days = ["2024-01-31", "31.01.2024", "1/31/2024", "2024-01-31T10:00:00Z"]
    rows = [f"{days[0]},{days[1]},{days[2]},{days[3]},1.2.3,{i % 7},{i % 2}" for i in range(60)]
    rows += [f",{days[1]},{days[2]},{days[3]},4.5.6,1,{i % 2}" for i in range(60)]
    file = tmp_path / "days.csv"
    file.write_text("\n".join(["a,b,c,d,release,n,late", *rows]).replace(f"\n{days[0]},", "\n2023-05-05,", 1))
    table = inspect_table(file, "late")
    assert table.inputs == ("release", "n")
    assert "`a` is left out: it holds dates" in " ".join(table.notes)


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="There is no file"):
        inspect_table(tmp_path / "none.csv", "y")
    for content in (b"", b"\x00\x01\xff\xfe" * 50, b"a,b\n1,2,3\n" * 60, b"\xff" * 100 + b",b\n" + b"1,2\n" * 60):
        (tmp_path / "odd.csv").write_bytes(content)
        with pytest.raises(Invalid):
            inspect_table(tmp_path / "odd.csv", "y")


def test_nothing_is_overwritten_and_bad_names_are_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "work.py").write_text("precious")
    path = _csv(tmp_path / "customers.csv", CUSTOMERS, _customers())
    with pytest.raises(Conflict, match="is there already"):
        write_project("taken", tmp_path / "taken")
    with pytest.raises(Conflict, match="is there already"):
        write_project_from_csv("taken", path, "left", tmp_path / "taken")
    assert [file.name for file in (tmp_path / "taken").iterdir()] == ["work.py"]
    for name in ("Late", "late_orders", "-late", "1late", "", "a" * 64, "../late"):
        with pytest.raises(Invalid, match="A model's name has"):
            write_project(name, tmp_path / "other")
