"""The first hour on the real processes, in its order: from a file to a live model, and what goes wrong on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import Relevo, eventually
from typing_commands import Result, Terminal

from relevo.cli.client import credentials
from relevo.platform.settings import Settings


@pytest.fixture(scope="module")
def applied(terminal: Terminal, churn: Path) -> Result:
    """What ``relevo apply`` printed of the first model, once it was live."""
    made = terminal.relevo("init", "churn", "--from", str(churn), "--label", "Churn?")
    assert made.status == 0, made.err
    assert "signed up is left out: it holds dates" in made.out
    project = terminal.folder / "churn/relevo.yaml"
    project.write_text(project.read_text().replace("minutes: 1, requests: 20", "minutes: 0, requests: 1"))
    done = terminal.relevo("apply", "churn")
    assert done.status == 0, done.err
    return done


@pytest.fixture
def project(terminal: Terminal) -> Iterator[Path]:
    """The contract of the first model; put back afterwards."""
    path = terminal.folder / "churn/relevo.yaml"
    before = path.read_text()
    yield path
    path.write_text(before)


def test_up_says_where_it_answers_and_shows_the_token_once(running: Relevo) -> None:
    eventually(lambda: "relevo init NAME" in running.said(), "the addresses to be said")
    said = running.said()
    assert said.count("rlv_") == 1
    assert f"Console  {running.url}" in said
    assert f"Gateway  {running.gateway}" in said


def test_the_first_apply_sums_a_new_model_up_and_ends_with_what_to_do(applied: Result, running: Relevo) -> None:
    assert "churn is new: classification" in applied.out
    assert "asks      Churn from [Monthly_Income, plan, age]" in applied.out
    assert "churn/data.csv" in applied.out
    assert "+ " not in applied.out, "the whole difference of a new model is for --verbose"
    assert "pass  roc_auc needs" in applied.out
    assert "churn/1 is live." in applied.out
    assert f"curl -s {running.gateway}/endpoints/churn/invocations" in applied.out
    assert f"{running.url}/models/churn" in applied.out


@pytest.mark.usefixtures("applied")
def test_the_curl_line_works_when_pasted(terminal: Terminal) -> None:
    shown = terminal.relevo("status", "churn").out
    answer = terminal.bash(shown[shown.index("export ") : shown.index("Console:")])
    assert json.loads(answer.out)["version"] == 1, answer


@pytest.mark.usefixtures("applied")
def test_a_second_apply_says_that_nothing_changes(terminal: Terminal) -> None:
    assert terminal.relevo("apply", "churn").out == "churn: nothing changes; revision 1 is applied\n"
    below = Terminal(terminal.folder / "churn", {})
    assert below.relevo("apply").out.startswith("churn: nothing changes"), "the home above is found"


@pytest.mark.usefixtures("applied")
def test_a_plan_shows_each_difference_and_applies_nothing(terminal: Terminal, project: Path) -> None:
    project.write_text(project.read_text().replace("learning_rate: 0.05", "learning_rate: 0.08"))
    planned = terminal.relevo("apply", "churn", "--plan").out
    assert "~ training.params.learning_rate: 0.05 -> 0.08" in planned
    assert "Nothing was applied." in planned
    assert "revision 1," in terminal.relevo("status", "churn").out


@pytest.mark.usefixtures("applied")
def test_predict_answers_and_says_what_is_missing(terminal: Terminal) -> None:
    asked = terminal.relevo("predict", "churn", "Monthly_Income=40", "plan=basic", "age=")
    assert asked.out.startswith("P(yes)")
    answer = terminal.relevo("predict", "churn", "Monthly_Income=40", "plan=basic", "age=", "--json")
    assert set(json.loads(answer.out)) == {"predictions", "version", "prediction_ids"}
    incomplete = terminal.relevo("predict", "churn", "plan=basic")
    assert incomplete.status == 2
    assert "Missing columns 'Monthly_Income', 'age'." in incomplete.err
    example = incomplete.err.split("For example: ")[1]
    assert terminal.bash(example).status == 0, example


@pytest.mark.usefixtures("applied")
@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["predict", "chrun", "a=1"], 4, "Did you mean 'churn'?"),
        (["predict", "churn", "Monthly_Income=much"], 2, "Monthly_Income needs a number, got 'much'."),
        (["predict", "churn", "plam=basic"], 2, "Did you mean 'plan'?"),
        (["predict", "churn", "--file", "none.json"], 2, "There is no file none.json."),
        (["predict", "churn", "--file", "churn/relevo.yaml"], 2, "is not JSON"),
        (["status", "chrun"], 4, "did you mean 'churn'?"),
        (["history", "chrun"], 4, "did you mean 'churn'?"),
        (["history", "churn", "--at", "2013-01-01T00:00Z"], 4, "Nothing was live on churn"),
        (["releases", "chrun"], 4, "did you mean 'churn'?"),
        (["alerts", "chrun"], 4, "did you mean 'churn'?"),
        (["rollback", "churn", "--reason", "why"], 5, "no previous champion"),
        (["approve", "deliver-churn-r1", "--reason", "why"], 5, "it does not wait for approval"),
        (["approve", "none", "--reason", "why"], 4, "There is no release 'none'."),
        (["token", "create", "nobody"], 4, "There is no principal 'nobody'"),
        (["token", "revoke", "none"], 4, "There is no token 'none'"),
        (["principal", "create", "Bad Name", "--role", "viewer"], 2, "begins with a letter or digit"),
        (["logs", "contrl"], 4, "did you mean 'control'?"),
        (["apply", "nowhere"], 4, "There is no relevo.yaml in nowhere."),
        (["up"], 5, "is in use by process"),
    ],
)
def test_a_mistake_is_one_message_and_its_exit_status(
    terminal: Terminal, arguments: list[str], status: int, message: str
) -> None:
    failed = terminal.relevo(*arguments)
    assert (failed.status, message in failed.err) == (status, True), failed
    assert not failed.out


@pytest.mark.usefixtures("applied")
def test_broken_contracts_name_each_line(terminal: Terminal, project: Path) -> None:
    text = (
        project.read_text().replace("roc_auc, at_least", "roc_acu, at_least").replace("log: durable", "logg: durable")
    )
    project.write_text(text)
    failed = terminal.relevo("apply", "churn")
    assert failed.status == 2
    lines = text.splitlines()
    for word, near in (("roc_acu", "'roc_auc'"), ("logg", "'log'")):
        number = next(place for place, line in enumerate(lines, 1) if word in line)
        [problem] = [line for line in failed.err.splitlines() if line.startswith(f"churn/relevo.yaml:{number}: ")]
        assert f"did you mean {near}" in problem
    assert "2 problems; nothing was applied." in failed.err


@pytest.mark.usefixtures("applied")
def test_what_was_done_can_be_read(terminal: Terminal) -> None:
    assert "churn  v1    healthy" in terminal.relevo("status").out
    [line] = json.loads(terminal.relevo("status", "--json").out)
    assert (line["model"], line["champion"]) == ("churn", 1)
    [release] = json.loads(terminal.relevo("releases", "--json").out)
    assert (release["id"], release["state"]) == ("deliver-churn-r1", "live")
    [route] = json.loads(terminal.relevo("history", "churn", "--json").out)
    at = terminal.relevo("history", "churn", "--at", route["effective_event_at"], "--json")
    assert json.loads(at.out) == [route]
    assert "production" in terminal.relevo("versions", "churn").out
    assert "version promoted" in terminal.relevo("ledger", "churn/1").out
    assert "each hash and link as recorded" in terminal.relevo("ledger", "--verify").out
    assert terminal.relevo("alerts").out == "No open alert.\n"


@pytest.mark.usefixtures("applied")
def test_logs_of_processes_and_of_releases_are_found(terminal: Terminal) -> None:
    listed = terminal.relevo("logs").out
    assert all(name in listed for name in ("control", "gateway-0", "collector", "deliver-churn-r1"))
    assert "MLflow" in eventually(lambda: terminal.relevo("logs", "control").out, "the log of control")
    assert terminal.relevo("logs", "deliver-churn").status == 0, "the beginning of a name is enough"


@pytest.mark.usefixtures("applied")
def test_doctor_finds_nothing_wrong_where_all_is_well(terminal: Terminal, running: Relevo) -> None:
    def healthy() -> dict[str, dict[str, str]] | None:
        found = {one["subject"]: one for one in json.loads(terminal.relevo("doctor", "--json", **ports).out)}
        return found if found["MLflow"]["level"] == "ok" else None

    ports = {"RELEVO_PORT": str(running.port), "RELEVO_GATEWAY_PORT": str(running.gateway_port)}
    found = eventually(healthy, "MLflow to be up")
    assert {one["level"] for name, one in found.items() if name != "disk"} == {"ok"}
    assert f"served by Relevo (process {running.process.pid})" in found[f"port {running.port}"]["message"]


@pytest.mark.usefixtures("applied")
def test_a_second_person_approves_and_the_command_says_how(terminal: Terminal, running: Relevo, project: Path) -> None:
    project.write_text(
        project.read_text()
        .replace("approvals: 0", "approvals: 1")
        .replace("steps: [25]", "steps: []")
        .replace("better_than_champion_by: 0.0", "better_than_champion_by: -1.0")
    )
    done = terminal.relevo("apply", "churn")
    assert done.status == 0, done
    assert "churn/2 waits for approval by a second person, not admin:" in done.out
    assert "relevo approve deliver-churn-r2 --reason WHY" in done.out
    own = terminal.relevo("approve", "deliver-churn-r2", "--reason", "mine")
    assert (own.status, "a second person must decide" in own.err) == (3, True)
    assert terminal.relevo("principal", "create", "ruth", "--role", "reviewer").status == 0
    token = terminal.relevo("token", "create", "ruth").out.strip()
    word = terminal.relevo("approve", "deliver-churn-r2", "--reason", "The gates hold.", RELEVO_TOKEN=token)
    assert "churn/2 approved (1 of 1 approvals)." in word.out
    admin = running.client(credentials(Settings(home=running.home)).token)
    eventually(
        lambda: admin.get("/api/releases/deliver-churn-r2")["release"]["state"] == "live", "the version to be live"
    )
    assert "ruth" in terminal.relevo("history", "churn").out
    back = terminal.relevo("rollback", "churn", "--reason", "To see it.")
    assert back.out == "churn/1 is live again.\n", back


@pytest.mark.usefixtures("applied")
def test_a_loader_that_fails_names_its_line_and_leaves_the_last_good_version_live(terminal: Terminal) -> None:
    sources = terminal.folder / "churn/churn/sources.py"
    before = sources.read_text()
    sources.write_text(
        before.replace("pl.DataFrame:\n", 'pl.DataFrame:\n    raise RuntimeError("warehouse is down")\n')
    )
    live = terminal.relevo("status", "churn", "--json").out
    failed = terminal.relevo("apply", "churn")
    sources.write_text(before)
    assert failed.status == 7, failed
    assert "RuntimeError: warehouse is down (churn/sources.py:" in failed.err
    release = failed.err.split("relevo logs ")[1].strip()
    assert "warehouse is down" in terminal.relevo("logs", release).out
    assert json.loads(terminal.relevo("status", "churn", "--json").out)["live"] == json.loads(live)["live"]
