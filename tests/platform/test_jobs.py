import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relevo.errors import JobFailed
from relevo.platform.jobs import Job

TEAM = """
import os
import sys


def load(rows):
    return {"rows": rows * 2}


def fail(text):
    raise ValueError(text)


def wrapped():
    from relevo.errors import Invalid
    try:
        fail("inner")
    except ValueError as error:
        raise Invalid("source flights: the loader failed", field="flights", hint="look there") from error


def fork_and_die():
    if os.fork() == 0:
        import time
        time.sleep(600)
    os._exit(3)


class Odd(Exception):
    def __str__(self):
        raise RuntimeError("no text")


def odd():
    raise Odd
"""

ENTRY = """
import os
import signal
import subprocess
import sys
import time

import team
from relevo.platform.jobs import progress, serve


def outside(text):
    raise KeyError(text)


def report(steps):
    for step in range(steps):
        progress(f"step {step}", (step + 1) / steps)
    progress("unknown")
    return {"steps": steps}


def noise(lines):
    for number in range(lines):
        print("x" * 1000, number)
        print("y" * 1000, number, file=sys.stderr)
    return {"lines": lines}


def syntax():
    import broken


def last_words(text):
    print(text, flush=True)
    os._exit(3)


def grandchild():
    return {"pid": subprocess.Popen(["sleep", "600"]).pid}


def sleep():
    progress("sleeping")
    time.sleep(600)


serve({
    "load": team.load,
    "fail": team.fail,
    "wrapped": team.wrapped,
    "odd": team.odd,
    "fork_and_die": team.fork_and_die,
    "leave": lambda code: sys.exit(code),
    "outside": outside,
    "report": report,
    "noise": noise,
    "syntax": syntax,
    "last_words": last_words,
    "grandchild": grandchild,
    "sleep": sleep,
    "environment": lambda: {"variables": dict(os.environ), "folder": os.getcwd(), "path": sys.path},
    "large": lambda size: {"text": "z" * size},
    "not_json": lambda: {"value": object()},
    "pid": lambda: {"pid": os.getpid(), "group": os.getpgid(0)},
})
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "team.py").write_text(TEAM)
    (folder / "entry.py").write_text(ENTRY)
    (folder / "broken.py").write_text("x = 1\ndef f(:\n")
    return folder


@pytest.fixture
def job(package: Path, tmp_path: Path) -> Iterator[Job]:
    with start(package, tmp_path) as job:
        yield job


def start(package: Path, tmp_path: Path, environment: dict[str, str] | None = None, entry: str = "entry") -> Job:
    return Job(
        entry,
        python=Path(sys.executable),
        package=package,
        log=tmp_path / "jobs" / "job.log",
        environment=environment or {},
    )


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_calls_are_answered_in_order_by_one_process(job: Job) -> None:
    assert job.call("load", rows=21) == {"rows": 42}
    assert job.call("pid") == job.call("pid") == {"pid": job.pid, "group": job.pid}
    assert job.is_alive


def test_an_error_names_its_type_message_and_line_and_the_job_goes_on(job: Job) -> None:
    line = TEAM.splitlines().index("    raise ValueError(text)") + 1
    with pytest.raises(JobFailed) as caught:
        job.call("fail", text="no such column")
    assert caught.value.message == f"ValueError: no such column (team.py:{line})"
    assert str(job.log) in (caught.value.hint or "")
    assert "Traceback" in job.log.read_text()
    assert job.call("load", rows=1) == {"rows": 2}


def test_an_error_of_ours_keeps_its_message_field_and_hint_and_the_place_of_its_cause(job: Job) -> None:
    with pytest.raises(JobFailed, match=r"^source flights: the loader failed \(team\.py:\d+\)$") as caught:
        job.call("wrapped")
    assert (caught.value.field, caught.value.hint) == ("flights", "look there")


def test_a_syntax_error_is_placed_in_the_file_that_has_it(job: Job) -> None:
    with pytest.raises(JobFailed, match=r"SyntaxError: .*\(broken\.py:2\)$"):
        job.call("syntax")


def test_an_error_without_text_and_one_that_exits_are_errors_too(job: Job) -> None:
    with pytest.raises(JobFailed, match="Odd: its message could not be read: RuntimeError"):
        job.call("odd")
    with pytest.raises(JobFailed, match="SystemExit: 4"):
        job.call("leave", code=4)
    with pytest.raises(JobFailed, match=r"TypeError: .*unsupported"):
        job.call("not_json")
    assert job.is_alive


def test_an_unknown_function_is_named_with_the_nearest(job: Job) -> None:
    with pytest.raises(JobFailed, match="not lod") as caught:
        job.call("lod", rows=1)
    assert caught.value.hint == "load"


def test_secrets_stay_out_of_messages(package: Path, tmp_path: Path) -> None:
    token = "rlv_" + "q" * 43
    with start(package, tmp_path, {"STORE_PASSWORD": "hunter2"}) as job:
        with pytest.raises(JobFailed, match=r"ValueError: \*\*\* at rlv_\*\*\* \("):
            job.call("fail", text=f"hunter2 at {token}")
        with pytest.raises(JobFailed) as caught:
            job.call("last_words", text=f"used hunter2 and {token}")
    assert "used *** and rlv_***" in caught.value.message


def test_progress_reaches_the_caller_and_may_be_ignored(job: Job) -> None:
    seen: list[tuple[str, float | None]] = []
    assert job.call("report", on_progress=lambda text, fraction: seen.append((text, fraction)), steps=2) == {"steps": 2}
    assert seen == [("step 0", 0.5), ("step 1", 1.0), ("unknown", None)]
    assert job.call("report", steps=1) == {"steps": 1}


def test_a_caller_that_fails_half_way_ends_the_job(job: Job) -> None:
    def refuse(text: str, fraction: float | None) -> None:
        raise RuntimeError(text)

    with pytest.raises(RuntimeError, match="step 0"):
        job.call("report", on_progress=refuse, steps=3)
    with pytest.raises(JobFailed):
        job.call("load", rows=1)


def test_what_is_printed_goes_to_the_log_and_blocks_nobody(job: Job) -> None:
    assert job.call("noise", lines=2000) == {"lines": 2000}
    assert job.log.stat().st_size > 4_000_000


def test_a_large_answer_arrives_whole_and_one_without_end_is_refused(job: Job) -> None:
    assert len(job.call("large", size=3_000_000)["text"]) == 3_000_000
    with pytest.raises(JobFailed, match="more than 64 MiB"):
        job.call("large", size=70_000_000)


def test_a_child_that_exits_is_reported_with_its_last_words(job: Job) -> None:
    with pytest.raises(JobFailed, match=r"(?s)entry ended with exit code 3 while it ran last_words.*farewell"):
        job.call("last_words", text="farewell")
    assert not job.is_alive
    with pytest.raises(JobFailed, match="closed"):
        job.call("load", rows=1)


def test_a_child_that_is_killed_is_reported_with_the_signal(job: Job) -> None:
    job.call("pid")
    threading.Timer(0, os.kill, (job.pid, signal.SIGKILL)).start()
    with pytest.raises(JobFailed, match="was killed by SIGKILL while it ran sleep") as caught:
        job.call("sleep")
    assert "memory" in (caught.value.hint or "")


def test_death_is_seen_although_a_forked_process_holds_the_pipe(job: Job) -> None:
    with pytest.raises(JobFailed, match="exit code 3"):
        job.call("fork_and_die")


def test_kill_ends_a_call_under_way(job: Job) -> None:
    with pytest.raises(JobFailed, match="SIGKILL while it ran sleep"):
        job.call("sleep", on_progress=lambda text, fraction: job.kill())


def test_close_ends_the_child_and_what_it_started(job: Job) -> None:
    grandchild = job.call("grandchild")["pid"]
    job.close()
    job.close()
    assert not is_running(job.pid)
    wait_until(lambda: not is_running(grandchild))
    job.kill()


def test_no_pipe_and_no_process_is_left(package: Path, tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with start(package, tmp_path) as job:
            job.call("load", rows=1)
        with start(package, tmp_path) as job, pytest.raises(JobFailed):
            job.call("last_words", text="")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_the_environment_is_scrubbed(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELEVO_STATE_URL", "postgresql://u:secret@h/db")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    with start(package, tmp_path, {"MLFLOW_TRACKING_TOKEN": "given"}) as job:
        answer = job.call("environment")
    names = set(answer["variables"]) - {"LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"}
    assert names == {
        "PATH",
        "HOME",
        "PYTHONPATH",
        "PYTHONNOUSERSITE",
        "PYTHONSAFEPATH",
        "PYTHONUNBUFFERED",
        "PYTHONFAULTHANDLER",
        "MLFLOW_TRACKING_TOKEN",
    }
    assert answer["folder"] == str(package)
    assert answer["path"][0] == str(package)


def test_calls_from_many_threads_take_turns(job: Job) -> None:
    answers: list[int] = []
    threads = [threading.Thread(target=lambda n=n: answers.append(job.call("load", rows=n)["rows"])) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [2 * n for n in range(20)]


def test_a_job_outlives_the_thread_that_started_it(package: Path, tmp_path: Path) -> None:
    made: list[Job] = []

    def make() -> None:
        made.append(start(package, tmp_path))
        made[0].call("load", rows=1)  # by now the child has asked to die with its parent

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    kernel_thread = Path(f"/proc/self/task/{thread.native_id}")
    wait_until(lambda: not kernel_thread.exists())
    with made[0] as job:
        assert job.call("load", rows=2) == {"rows": 4}


def test_the_child_dies_with_its_parent(package: Path, tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from relevo.platform.jobs import Job
job = Job("entry", python=Path(sys.executable), package=Path({str(package)!r}),
          log=Path({str(tmp_path / "job.log")!r}), environment={{}})
print(job.call("pid")["pid"], flush=True)
job.call("sleep")
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert select.select([parent.stdout], [], [], 60)[0]
        child = int(parent.stdout.readline())
        assert is_running(child)
        parent.kill()
        wait_until(lambda: not is_running(child))


def test_a_module_or_interpreter_that_does_not_start_is_named(package: Path, tmp_path: Path) -> None:
    with start(package, tmp_path, entry="absent") as job, pytest.raises(JobFailed, match="No module named absent"):
        job.call("load")
    with pytest.raises(JobFailed, match="could not be started"):
        Job("entry", python=tmp_path / "nowhere", package=None, log=tmp_path / "log", environment={})


def test_only_this_jobs_lines_are_quoted_from_a_shared_log(package: Path, tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "job.log").write_text("of another job\n")
    with start(package, tmp_path) as job, pytest.raises(JobFailed) as caught:
        job.call("last_words", text="mine")
    assert "another" not in caught.value.message and "mine" in caught.value.message
