"""What the commands print, from plain values."""

from __future__ import annotations

import errno
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from relevo.cli import machine_error, terminal
from relevo.cli.logs import find_logs
from relevo.cli.models import event_time, typed
from relevo.cli.projects import summary
from relevo.errors import Invalid

COLUMNS = ["release", "version", "why"]
ROWS = [["deliver-flight-delay-r1", 3, "version 3 answers with a p99 of 290 ms, allowed are 200 ms"]]


def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int) -> str:
    monkeypatch.setattr(terminal, "console", Console(width=width))
    terminal.table(COLUMNS, ROWS, empty="none")
    return capsys.readouterr().out


def test_a_table_breaks_between_words_and_keeps_ids_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = shown(monkeypatch, capsys, width=64).splitlines()
    assert all(len(line) <= 64 for line in lines)
    assert lines[1].startswith("deliver-flight-delay-r1        3  version 3 answers")
    assert lines[2].strip() == "of 290 ms, allowed are 200 ms"


def test_a_terminal_too_narrow_for_a_table_gets_a_line_a_cell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = shown(monkeypatch, capsys, width=40).splitlines()
    assert lines[:2] == ["release  deliver-flight-delay-r1", "version  3"]


def test_a_sentence_in_a_narrow_terminal_breaks_between_words_under_its_beginning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = shown(monkeypatch, capsys, width=40).splitlines()
    assert lines[2:] == ["why      version 3 answers with a p99 of", "         290 ms, allowed are 200 ms"]


def test_a_narrow_terminal_keeps_what_is_copied_whole_and_dims_the_names_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "console", Console(width=24, force_terminal=True, color_system="standard"))
    terminal.table(COLUMNS, ROWS, empty="none")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "\x1b[2mrelease  \x1b[0mdeliver-flight-delay-r1"


def test_a_sentence_that_would_stand_in_a_long_thin_column_gets_lines_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "console", Console(width=80))
    sentence = " ".join(["a source cannot be reached"] * 12)
    row = [7, "flight-delay", "critical", "release", "2013-08-15 00:00", sentence]
    terminal.table(["alert", "model", "severity", "about", "event time", "message"], [row], empty="none")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "alert       7"
    assert len(lines) < 12


def test_a_line_in_a_pipe_is_whole_and_ends_with_its_last_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "console", Console(width=10_000))
    terminal.table(COLUMNS, [*ROWS, ["deliver-flight-delay-r2", 4, "fine"]], empty="none")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("  why")
    assert lines[1].endswith(ROWS[0][2])
    assert lines[2] == "deliver-flight-delay-r2        4  fine"


def test_no_row_is_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.table(COLUMNS, [], empty="No release yet.")
    assert capsys.readouterr().out == "No release yet.\n"


def test_text_is_not_read_as_markup(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.say("inputs: [bold] and [/] stay as they are")
    assert capsys.readouterr().out == "inputs: [bold] and [/] stay as they are\n"


def test_a_hint_that_the_message_holds_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.show_error(Invalid("Unknown column 'a'. Did you mean 'b'?", hint="Did you mean 'b'?"))
    assert capsys.readouterr().err == "Error: Unknown column 'a'. Did you mean 'b'?\n"


def test_event_times_are_read_as_people_write_them() -> None:
    assert event_time("2013-08-15T00:00Z") == datetime(2013, 8, 15, tzinfo=UTC)
    assert event_time("2013-08-15") == datetime(2013, 8, 15, tzinfo=UTC)
    with pytest.raises(Invalid, match="needs its offset, such as 2013-08-15T10:00Z"):
        event_time("2013-08-15T10:00")
    with pytest.raises(Invalid, match="got 'yesterday'"):
        event_time("yesterday")


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [("", "float", None), ("4", "float", 4), ("-1.5e3", "float", -1500.0), ("7", "integer", 7),
     ("True", "boolean", True), ("7", "text", "7"), ("2013-08-15T00:00Z", "time", "2013-08-15T00:00Z")],
)  # fmt: skip
def test_values_take_the_type_of_their_column(text: str, kind: str, value: object) -> None:
    assert typed(text, kind, "a") == value


@pytest.mark.parametrize(
    ("text", "kind"), [("x", "float"), ("true", "float"), ("1.5", "integer"), ("1", "boolean"), ("[1]", "float")]
)
def test_values_of_another_type_are_refused(text: str, kind: str) -> None:
    with pytest.raises(Invalid, match="a needs"):
        typed(text, kind, "a")


def test_a_new_model_is_summed_up() -> None:
    new = {"task": "classification", "owner": "ops", "label.column": "late", "ask.inputs": "[a, b]", "gates[0]": "x",
           "gates[1]": "y", "sources.rows.loader": "m:f", "sources.rows.key": "[id]"}  # fmt: skip
    change = {
        "model": "m",
        "differences": [{"field": name, "old": None, "new": text} for name, text in new.items()],
        "code": [f"+ m/{number}.py" for number in range(14)],
    }
    assert summary(change)[:4] == [
        "m is new: classification, owned by ops",
        "  asks      late from [a, b]",
        "  reads     rows",
        "  contract  label 1, ask 1, gates 2, sources 2",
    ]
    assert summary(change)[4].endswith("m/11.py and 2 more")


def test_logs_of_jobs_go_by_their_release(tmp_path: Path) -> None:
    for file in ("logs/control.log", "jobs/deliver-m-r1-0123abcd/child.log", "jobs/deliver-m-r2-0123abcd/child.log"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(file)
    assert set(find_logs(tmp_path)) == {"control", "deliver-m-r1", "deliver-m-r2"}


def test_what_the_machine_refuses_is_said_in_our_words() -> None:
    full = machine_error(OSError(errno.ENOSPC, "No space left on device", "/home/x/state.db"))
    assert (full.message, full.exit_status) == ("The disk is full: /home/x/state.db.", 6)
    closed = machine_error(PermissionError(errno.EACCES, "Permission denied", "/root/.relevo"))
    assert closed.message == "Permission denied: /root/.relevo."
    assert closed.hint is not None
