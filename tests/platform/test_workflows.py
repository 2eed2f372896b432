from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from relevo.errors import Conflict, Invalid, JobFailed, NotFound, Unavailable
from relevo.platform.activities import ActivityState
from relevo.platform.settings import Settings
from relevo.platform.state import State
from relevo.platform.workflows import Cancelled, StepFailed, Workflows

PROGRAM = Path(__file__).with_name("durable_program.py")


@pytest.fixture
def workflows(state: State, tmp_path: Path) -> Iterator[Workflows]:
    made = make(state, tmp_path)
    yield made
    made.close()


def make(state: State, home: Path) -> Workflows:
    url = None if state.is_sqlite else state.url.render_as_string(hide_password=False)
    return Workflows(Settings(home=home, state_url=url), state, poll_seconds=0.02)


def eventually(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


def test_a_workflow_gives_json_and_a_second_start_under_its_id_changes_nothing(workflows: Workflows) -> None:
    calls: list[str] = []

    def work(text: str) -> tuple[str, datetime]:
        calls.append(workflows.workflow_id)
        return text, datetime(2013, 4, 1, tzinfo=UTC)

    @workflows.register("deliver")
    async def deliver(model: str) -> object:
        return await workflows.step(work, model)

    workflows.launch()
    workflows.start("deliver", "d1", model="flight-delay")
    workflows.start("deliver", "d1", model="flight-delay")
    status = workflows.wait("d1", 10)
    assert (status.state, status.output) == ("succeeded", ["flight-delay", "2013-04-01T00:00:00Z"])
    workflows.start("deliver", "d1", model="flight-delay")
    assert calls == ["d1"]
    assert workflows.activities.open() == []


def test_errors_of_a_step_keep_their_class_and_words(workflows: Workflows) -> None:
    seen: list[Exception] = []

    def raises(error: str) -> None:
        raise {"job": JobFailed("no rows", field="flights", hint="look"), "other": ValueError("odd")}[error]

    @workflows.register("deliver")
    async def deliver() -> None:
        for name in ("job", "other"):
            try:
                await workflows.step(raises, name)
            except Exception as error:
                seen.append(error)
        raise Invalid("the end", field="x")

    workflows.launch()
    workflows.start("deliver", "d1")
    error = workflows.wait("d1", 10).error
    assert isinstance(error, Invalid)
    assert (error.message, error.field) == ("the end", "x")
    assert isinstance(seen[0], JobFailed)
    assert isinstance(seen[1], StepFailed)
    assert seen[1].message == "ValueError: odd"


def test_only_what_may_pass_is_tried_again(workflows: Workflows) -> None:
    tries: list[str] = []

    def busy() -> str:
        tries.append("busy")
        if len(tries) < 2:
            raise Unavailable("not yet")
        return "there"

    def broken() -> None:
        tries.append("broken")
        raise JobFailed("never")

    @workflows.register("deliver")
    async def deliver() -> str:
        found = await workflows.step(busy, retries=3)
        await workflows.step(broken, retries=3)
        return str(found)

    workflows.launch()
    workflows.start("deliver", "d1")
    assert isinstance(workflows.wait("d1", 15).error, JobFailed)
    assert tries == ["busy", "busy", "broken"]


def test_a_wait_says_what_it_waits_for_and_messages_of_other_topics_are_kept(workflows: Workflows) -> None:
    @workflows.register("deliver")
    async def deliver(model: str) -> list[object]:
        approval = await workflows.recv("approval", 86400, waits_for="approval of flight-delay/3")
        return [approval, await workflows.recv("note", 60), await workflows.recv("never", 0.05)]

    workflows.launch()
    workflows.start("deliver", "d1", model="flight-delay")
    eventually(lambda: workflows.activities.open()[0].state is ActivityState.WAITING)
    activity = workflows.activities.of("flight-delay")[0]
    assert (activity.kind, activity.text) == ("deliver", "approval of flight-delay/3")
    workflows.send("d1", "note", {"n": 1})
    workflows.send("d1", "approval", {"by": "eve"}, once="k")
    workflows.send("d1", "approval", {"by": "eve"}, once="k")
    assert workflows.wait("d1", 10).output == [{"by": "eve"}, {"n": 1}, None]
    with pytest.raises(NotFound):
        workflows.send("d2", "approval", {})


def test_cancelling_ends_a_long_wait_and_what_undoes_it_still_runs_as_steps(workflows: Workflows) -> None:
    undone: list[str] = []

    @workflows.register("deliver")
    async def deliver() -> None:
        try:
            await workflows.sleep(86400, waits_for="10 minutes of event time")
        except Cancelled as error:
            await workflows.step(undone.append, error.message, name="undo")
            raise

    workflows.launch()
    workflows.start("deliver", "d1")
    eventually(lambda: workflows.activities.open()[0].state is ActivityState.WAITING)
    workflows.cancel("d1", "wrong data")
    assert isinstance(workflows.wait("d1", 10).error, Cancelled)
    assert undone == ["wrong data"]


def test_a_step_may_start_another_workflow(workflows: Workflows) -> None:
    @workflows.register("inner")
    async def inner(n: int) -> int:
        return n + 1

    @workflows.register("outer")
    async def outer() -> None:
        await workflows.step(lambda: workflows.start("inner", "inner-1", n=1), name="start")

    workflows.launch()
    workflows.start("outer", "outer-1")
    assert workflows.wait("outer-1", 10).state == "succeeded"
    assert workflows.wait("inner-1", 10).output == 2
    with pytest.raises(Conflict):
        workflows.start("inner", "outer-1", n=1)
    with pytest.raises(NotFound, match="inner, outer"):
        workflows.start("iner", "x")


def test_closing_records_nothing_of_a_step_in_flight_and_the_next_launch_goes_on(state: State, tmp_path: Path) -> None:
    began, ends = threading.Event(), threading.Event()
    calls: list[str] = []

    def program() -> Workflows:
        made = make(state, tmp_path)

        def before() -> None:
            calls.append("before")

        def interrupted() -> str:
            calls.append("interrupted")
            began.set()
            if len(calls) == 2:
                ends.wait(20)
                raise JobFailed("its child was ended")
            return "done"

        @made.register("deliver")
        async def deliver() -> object:
            await made.step(before)
            return await made.step(interrupted)

        made.on_close(ends.set)
        made.launch()
        return made

    first = program()
    first.start("deliver", "d1")
    assert began.wait(10)
    first.close()
    second = program()
    try:
        assert second.wait("d1", 10).output == "done"
    finally:
        second.close()
    assert calls == ["before", "interrupted", "interrupted"]


def test_kill_9_goes_on_at_the_unfinished_step_and_repeats_no_finished_one(tmp_path: Path) -> None:
    journal = tmp_path / "journal"

    def lines() -> list[str]:
        return journal.read_text().splitlines() if journal.exists() else []

    def serve() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, str(PROGRAM), str(tmp_path), "serve"])

    program = serve()
    eventually(lambda: "slow begins" in lines())
    program.send_signal(signal.SIGKILL)
    program.wait()

    (tmp_path / "go").touch()
    program = serve()
    eventually(lambda: "slow ends" in lines())
    state = State(Settings(home=tmp_path).state_database)
    query = sa.text("SELECT state || ' ' || text FROM activities")

    def activity() -> str:
        with state.read() as tx:
            return str(tx.execute(query).scalar())

    eventually(lambda: activity() == "waiting approval of flight-delay/1")
    program.send_signal(signal.SIGKILL)
    program.wait()

    subprocess.run([sys.executable, str(PROGRAM), str(tmp_path), "send", "deliver-1", "eve"], check=True, timeout=60)
    program = serve()
    assert program.wait(timeout=60) == 0
    assert lines()[:-1] == ["first", "fails", "slow begins", "slow begins", "slow ends", "approved by eve"]
    expected = {
        "one": {"pair": [1, 2]},
        "two": "slow",
        "failed": ["job_failed", "the loader said no", "sources.flights", "look at it"],
    }
    assert lines()[-1] == f"result succeeded {expected}"
    assert activity().startswith("done")
    state.close()
