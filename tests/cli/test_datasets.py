"""``relevo datasets`` against the routes of a home with real tables."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from explored import explored
from plane import installation, serving
from typing_commands import Terminal


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """A terminal that is told where the control plane answers, and given a viewer's token."""
    with installation(tmp_path_factory.mktemp("data"), explored) as (app, _, tokens), serving(app) as address:
        variables = {"RELEVO_URL": address, "RELEVO_TOKEN": tokens["vera"]}
        yield Terminal(tmp_path_factory.mktemp("here"), variables)


def datasets(terminal: Terminal, *arguments: str) -> str:
    done = terminal.relevo("datasets", *arguments)
    assert done.status == 0, done.err
    return done.out


def test_every_dataset_is_listed_under_its_model(terminal: Terminal) -> None:
    lines = [line.split() for line in datasets(terminal, "list").splitlines()]
    assert lines[0] == ["flight-delay"] and lines[4] == ["turnaround"]
    assert lines[2][:7] == ["flights", "3", "1600", "2026-02-10", "2026-02-10", "maya", "8f3c2a91"]
    found = json.loads(datasets(terminal, "list", "--json"))
    assert [(one["model"], one["source"]) for one in found][-1] == ("turnaround", "weather")


def test_one_version_is_shown_with_its_schema_checks_and_origin(terminal: Terminal) -> None:
    shown = datasets(terminal, "show", "flights", "--version", "2")
    for part in (
        "flight-delay/flights version 2 (the newest is 3)",
        "800, 7 more are quarantined",
        "maya, revision 1 of the contract",
        "v2 (production, run 02c4d1e8f7a9)",
        "Changes since version 1\n  column distance is new (Float64)",
        "Datetime(us, UTC)  names a row",
        "{flight_id: 3, delay: 912.0}",
    ):
        assert part in shown, part


def test_history_is_the_newest_first_and_says_how_many_more_there_are(terminal: Terminal) -> None:
    lines = datasets(terminal, "history", "flights", "-n", "2").splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["3", "2"]
    assert lines[2].endswith("schema changed, 1 check fails, 7 quarantined")
    assert lines[3] == "2 earlier ones: --lines 4"


def test_two_versions_are_compared_and_by_default_the_newest(terminal: Terminal) -> None:
    shown = datasets(terminal, "diff", "flight-delay/flights", "1", "2")
    for part in (
        "flight-delay/flights 1 → 2\nRows: 600 → 800; 200 added, 0 removed, 6 changed, told by scheduled_at and ",
        "  added   scheduled_at: 2026-01-16T00:00:00+00:00, flight_id: 600",
        "\ndelay  Float64\n  6 cells changed; ",
        "\ndistance  added, Float64\n",
        "\n1 column does not differ.",
    ):
        assert part in shown, part
    assert datasets(terminal, "diff", "flights").startswith("flights 2 → 3\n")
    assert json.loads(datasets(terminal, "diff", "flights", "1", "2", "--json"))["comparison"]["added"] == 200


def test_tables_stay_tables_in_a_terminal_of_80_columns(terminal: Terminal) -> None:
    relevo = f"{sys.executable} -m relevo datasets"
    done = terminal.run(["script", "-qec", f"stty cols 80; {relevo} list && {relevo} history flights", "/dev/null"])
    lines = re.sub(r"\x1b\[[0-9;]*m", "", done.out).replace("\r", "").splitlines()
    assert max(len(line) for line in lines) <= 80
    assert sum(line.startswith("dataset  version") for line in lines) == 2
    assert sum(line.startswith("version  rows") for line in lines) == 1


def test_a_profile_is_written_to_a_file(terminal: Terminal) -> None:
    said = datasets(terminal, "profile", "turnaround/weather", "--output", "report.html")
    assert said == "report.html  turnaround/weather version 0; open it in a browser.\n"
    page = (Path(terminal.folder) / "report.html").read_text()
    assert page.startswith("<!doctype html>") and "All 3 rows." in page


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["show", "flihgts"], 4, "There is no dataset flihgts.\nDid you mean flight-delay/flights?"),
        (["show", "weather"], 2, "Name one of them: flight-delay/weather, turnaround/weather."),
        (["show", "flights", "--version", "9"], 4, "known versions: 3, 2, 1, 0"),
        (
            ["diff", "turnaround/weather"],
            4,
            "turnaround/weather has one version only, 0: there is none to compare it with.\n"
            "A load that finds other rows makes the next: relevo train turnaround, or relevo apply.",
        ),
        (["profile", "flights", "--output", "no/where.html"], 1, "No such file or directory: no/where.html"),
    ],
)
def test_a_mistake_is_one_message_and_its_exit_status(
    terminal: Terminal, arguments: list[str], status: int, message: str
) -> None:
    failed = terminal.relevo("datasets", *arguments)
    assert (failed.status, message in failed.err) == (status, True), failed
    assert not failed.out
