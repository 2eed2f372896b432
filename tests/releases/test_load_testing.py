"""A load test against a real gateway: figures and verdicts, and no trace of its requests anywhere."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from real_gateway import Gateway
from release_world import CONTRACT, MODEL, RUTH, World, evaluation, sealed_files

from relevo.contract.model import LoadTest, ServiceLevel
from relevo.errors import Invalid, Unavailable
from relevo.identity.model import Role
from relevo.platform.settings import Settings
from relevo.platform.state import State, metadata
from relevo.predictions import frames
from relevo.registry.load_rows import LOAD_ROWS_FILE, LoadRows
from relevo.registry.model import Stage
from relevo.releases.model import LoadFigures, ReleaseState
from relevo.runtimes.loading import PROBE_FILE
from relevo.serving.model import Counters

PROGRAM = Path(__file__).with_name("release_program.py")


class Bench:
    """A world whose contract asks for a load test, and a real gateway in it."""

    def __init__(self, folder: Path) -> None:
        self.gateway = Gateway()
        self.settings = Settings(home=folder, gateway_port=self.gateway.port)
        self.state = State(self.settings.state_database)
        with self.state.transaction() as tx:
            metadata.create_all(tx)
        self.world = World(self.state, self.settings)
        with self.state.transaction() as tx:
            self.admin = self.world.identity.bootstrap(tx) or ""

    def begin(
        self,
        requests: int = 60,
        p99_ms: float = 5000.0,
        files: dict[str, bytes] | None = None,
        concurrency: int = 4,
        rows: int = 1,
    ) -> None:
        """A release as far as judged, and a gateway that runs."""
        test = LoadTest(requests, concurrency, rows)
        level = ServiceLevel(p99_ms, error_rate=0.01)
        self.world.apply(replace(CONTRACT, release=replace(CONTRACT.release, slo=level, load_test=test)))
        began = self.world.begin(1)
        self.world.seal(1, began.id, files)
        self.world.releases.judge(began.id, 1, evaluation(), {"bundle": "b"})
        self.gateway.start(self.settings, self.world.serving)

    def measure(self) -> LoadFigures:
        found = self.world.load_testing.measure("r1")
        assert found is not None
        return found

    def records(self) -> list[frames.Record]:
        """Every record in the log of the gateway."""
        files = sorted(self.settings.folder("log").glob("*/*-*.*"))
        return [record for path in files for record in frames.scan(path.read_bytes())]

    def close(self) -> None:
        self.gateway.close()
        self.state.close()


@pytest.fixture
def tested(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "home")
    yield made
    made.close()


def test_a_version_is_measured_before_any_traffic_and_its_requests_leave_no_trace(tested: Bench) -> None:
    tested.begin(requests=60, concurrency=3, rows=2)
    found = tested.measure()
    assert (found.requests, found.failed, found.failure) == (60, 0, None)
    assert (found.concurrency, found.rows, found.runs, found.is_looked_up) == (3, 2, 1, True)
    assert 0 < found.p50_ms <= found.p95_ms <= found.p99_ms
    assert found.requests_per_second > 0
    assert tested.world.stages() == {1: Stage.STAGING}
    assert (tested.world.placed(), tested.world.arms()) == ({1}, [])
    tested.gateway.stop()  # its last report is written, and its log closed
    counted = tested.world.serving.counters(MODEL)
    assert counted.get(1, Counters()) == Counters()
    assert tested.records() == []


def test_the_verdicts_are_gates_in_evidence_that_a_person_decides_on(tested: Bench) -> None:
    tested.begin()
    before = tested.world.releases.release("r1").evidence
    found = tested.measure()
    for _ in range(2):  # a step may be repeated after a crash
        evidence = tested.world.load_testing.judge("r1", found)
    assert [gate.gate for gate in evidence.gates[-2:]] == ["load test: p99", "load test: error rate"]
    assert len(evidence.gates) == len(CONTRACT.gates) + 2
    assert evidence.passed
    assert evidence.gates[-2].message == f"p99 needs <= 5000 ms, got {found.p99_ms:.1f} ms (60 requests, 4 at once)"
    assert evidence.digest != before
    assert tested.world.releases.release("r1").evidence == evidence.digest
    assert tested.world.releases.evidence(MODEL, 1) == evidence
    assert tested.world.actions("r1") == ["release began", "gates judged", "load test judged"]
    tested.world.releases.await_approval("r1")
    assert tested.world.releases.decide("r1", RUTH, approved=True, reason="fine").is_decided
    (word,) = tested.world.releases.approvals(MODEL, 1)
    assert word.evidence == evidence.digest


def test_a_latency_that_is_missed_is_measured_three_times_and_the_best_run_counts(tested: Bench) -> None:
    tested.begin(requests=20, p99_ms=0.001)
    found = tested.measure()
    assert found.runs == 3
    evidence = tested.world.load_testing.judge("r1", found)
    failed = [gate.message for gate in evidence.gates if not gate.passed]
    assert failed == [f"p99 needs <= 0.001 ms, got {found.p99_ms:.1f} ms (20 requests, 4 at once)"]


def test_requests_that_the_version_cannot_answer_fail_the_gate_with_its_words(tested: Bench) -> None:
    hours: list[list[object]] = [[1], ["noon"], [3], [4]]
    files = {**sealed_files(1), LOAD_ROWS_FILE: sealed_files(1, LoadRows(("hour",), hours))[LOAD_ROWS_FILE]}
    tested.begin(requests=40, files=files)
    found = tested.measure()
    assert (found.requests, found.failed, found.runs) == (40, 10, 1)
    evidence = tested.world.load_testing.judge("r1", found)
    failed = [gate.message for gate in evidence.gates if not gate.passed]
    assert failed == [
        "error rate needs <= 1.00%, got 25.00% (10 of 40 requests, 4 at once); "
        "the first: Column 'hour', row 0: expected an integer, got text 'noon'."
    ]


def test_a_contract_without_load_test_places_nothing(tested: Bench) -> None:
    tested.begin(requests=0)
    assert tested.world.load_testing.measure("r1") is None
    assert tested.world.placed() == set()
    assert tested.world.stages() == {1: Stage.CANDIDATE}


def test_a_version_that_was_sealed_without_rows_is_asked_with_those_of_its_probe(tested: Bench) -> None:
    files = sealed_files(1)
    del files[LOAD_ROWS_FILE]
    tested.begin(requests=20, files=files)
    found = tested.measure()
    assert (found.requests, found.failed) == (20, 0)


def test_a_version_without_any_row_says_so(tested: Bench) -> None:
    files = {**sealed_files(1), PROBE_FILE: b'{"rows":[],"outputs":[],"tolerance":1e-9}'}
    del files[LOAD_ROWS_FILE]
    tested.begin(files=files)
    with pytest.raises(Invalid, match=r"delay/1 was sealed without load_rows\.json"):
        tested.measure()


def test_a_gateway_that_goes_away_is_no_verdict_on_the_version(tested: Bench) -> None:
    tested.begin(requests=100_000)

    def stop_soon() -> None:
        until(lambda: any(token.role is Role.LOAD_TEST for token in tested.world.identity.tokens()))
        tested.gateway.stop()

    stopping = threading.Thread(target=stop_soon)
    stopping.start()
    with pytest.raises(Unavailable, match="The gateway went away in the load test of delay/1"):
        tested.measure()
    stopping.join()
    assert tested.world.actions("r1") == ["release began", "gates judged"]


def test_the_token_of_a_load_test_is_revoked_and_asks_nothing_but_one_version(tested: Bench) -> None:
    tested.begin()
    tested.measure()
    (made,) = [token for token in tested.world.identity.tokens() if token.role is Role.LOAD_TEST]
    assert (made.principal, made.note) == ("relevo", "load test of delay/1")
    assert made.revoked_at is not None and made.expires_at is not None


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_kill_9_in_a_load_test_does_it_again_and_records_one_verdict(tested: Bench) -> None:
    tested.begin(requests=0)  # only to have the gateway
    world = tested.world
    world.releases.end("r1", ReleaseState.CANCELLED, "not this one")
    test = LoadTest(requests=4000, concurrency=2)
    long = replace(CONTRACT, release=replace(CONTRACT.release, slo=ServiceLevel(5000.0), load_test=test))
    world.apply(long, revision=2)
    log = tested.settings.folder("logs") / "program.out"

    def run(*releases: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "RELEVO_GATEWAY_PORT": str(tested.gateway.port)}
        command = [sys.executable, str(PROGRAM), str(tested.settings.root), *releases]
        with log.open("ab") as output:
            return subprocess.Popen(command, stdout=output, stderr=output, env=environment)

    def load_test_tokens() -> int:
        return sum(token.role is Role.LOAD_TEST for token in world.identity.tokens())

    program = run("r2")
    try:
        until(lambda: load_test_tokens() == 1)
        program.send_signal(signal.SIGKILL)
        program.wait()
        assert world.actions("r2") == ["release began", "gates judged"]
        program = run()
        until(lambda: world.releases.release("r2").state is ReleaseState.WAITING_FOR_APPROVAL)
    finally:
        program.send_signal(signal.SIGKILL)
        program.wait()
    assert load_test_tokens() == 2
    assert world.actions("r2") == ["release began", "gates judged", "load test judged"]
    evidence = world.releases.evidence(MODEL, 2)
    assert evidence is not None and evidence.passed
    assert [gate.gate for gate in evidence.gates].count("load test: p99") == 1
    journal = (tested.settings.root / "journal").read_text().splitlines()
    assert journal == ["train r2"]


def test_a_missed_service_level_rejects_the_release(tested: Bench) -> None:
    tested.begin(requests=20, p99_ms=0.001)
    world = tested.world
    evidence = world.load_testing.judge("r1", tested.measure())
    assert not evidence.passed
    world.releases.end("r1", ReleaseState.REJECTED, evidence.gates[-2].message)
    assert world.stages() == {1: Stage.REJECTED}
    assert world.placed() == set()


def test_the_champion_answers_and_keeps_its_settings_while_a_challenger_is_tested(tested: Bench) -> None:
    tested.begin(requests=0)
    world = tested.world
    world.releases.await_approval("r1")
    world.releases.decide("r1", RUTH, approved=True, reason="fine")
    world.releases.load("r1")
    world.releases.promote("r1")
    test = LoadTest(requests=50)
    changed = replace(
        CONTRACT, log="buffered", release=replace(CONTRACT.release, slo=ServiceLevel(5000.0), load_test=test)
    )
    world.apply(changed, revision=2)
    world.begin(2, revision=2)
    world.seal(2, "r2")
    world.releases.judge("r2", 2, evaluation(champion=1), {"bundle": "b"})
    found = world.load_testing.measure("r2")
    assert found is not None and found.failed == 0
    assert world.arms() == [(1, 100)]
    assert world.serving.endpoint(MODEL).settings.log == "durable"
    headers = {"Authorization": f"Bearer {tested.admin}"}
    url = f"http://127.0.0.1:{tested.gateway.port}/endpoints/{MODEL}/invocations"
    answer = httpx.post(url, json={"dataframe_records": [{"hour": 3}]}, headers=headers)
    assert (answer.status_code, answer.json()["version"]) == (200, 1)
