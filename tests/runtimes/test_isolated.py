"""The isolated runtime: a real child with a real model, killed, hung and closed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import numpy as np
import pytest

from relevo.contract.model import Task
from relevo.errors import Corrupted, Invalid, JobFailed, Unavailable
from relevo.platform.memory import private_bytes
from relevo.runtimes import isolated, isolated_process
from relevo.runtimes.isolated import IsolatedRuntime, ProcessLimits
from relevo.runtimes.loading import load_runtime
from relevo.runtimes.model import Column, ColumnType, Signature
from relevo.runtimes.model_folder import model_files

SIGNATURE = Signature(Task.REGRESSION, (Column("x", ColumnType.FLOAT), Column("name", ColumnType.TEXT)))


@dataclass(frozen=True)
class Sealed:
    runtime: str
    signature: Signature


def awkward_model() -> Any:
    """A model that a test can make fail, hang or die. Pickled by value, as a team's own class would be."""

    class Awkward:
        def predict(self, frame: Any) -> Any:
            if (frame.x < 0).any():
                raise ValueError("x must not be negative")
            if (frame.x == 666).any():
                import os as system

                system._exit(66)
            if (frame.x == 999).any():
                import time as clock

                clock.sleep(60)
            if (frame.x == 555).any():
                import time as clock

                clock.sleep(0.03)
            if (frame.x == 777).any():
                self.kept = [*getattr(self, "kept", []), b"x" * 20_000_000]
            return frame.x * 2 + frame.name.cat.codes + len(frame) / 1e6

    return Awkward()


def bundle(folder: Path, model: Any, probe: str = '{"rows":[[1.5,"b"]],"outputs":[4.000001],"tolerance":1e-9}') -> Path:
    (folder / "model").mkdir(parents=True)
    (folder / "runtime").mkdir()
    (folder / "model/MLmodel").write_text(
        "flavors:\n  sklearn:\n    code: null\n    pickled_model: model.pkl\n    serialization_format: cloudpickle\n"
    )
    (folder / "model/model.pkl").write_bytes(cloudpickle.dumps(model))
    (folder / "runtime/categories.json").write_text('{"name": ["a", "b"]}')
    (folder / "runtime/probe.json").write_text(probe)
    return folder


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IsolatedRuntime]:
    """One child for the module; it is replaced where a test ends it."""
    folder = bundle(tmp_path_factory.mktemp("bundle") / "v1", awkward_model())
    runtime = IsolatedRuntime(folder, SIGNATURE, limits=ProcessLimits(call_seconds=2.0))
    yield runtime
    runtime.close()


def near(answers: Any, expected: list[float]) -> bool:
    return bool(np.allclose(answers, expected, atol=0.01))


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_it_answers_with_the_training_categories(runtime: IsolatedRuntime) -> None:
    answers = runtime.predict([[1.0, "a"], [1.0, "b"], [1.0, "unseen"], [1.0, None]])
    assert near(answers, [2.0, 3.0, 1.0, 1.0])


def test_requests_that_wait_are_answered_in_one_batch(runtime: IsolatedRuntime) -> None:
    async def many() -> list[Any]:
        return await asyncio.gather(*(runtime.predict_async([[float(i), "a"]]) for i in range(50)))

    answers = asyncio.run(many())
    assert near([answer[0] for answer in answers], [2.0 * i for i in range(50)])
    # The model adds a millionth per row of the frame that it sees.
    sizes = [round((answer[0] - 2 * i) * 1e6) for i, answer in enumerate(answers)]
    assert max(sizes) > 1


def test_callers_that_are_answered_together_come_back_together(runtime: IsolatedRuntime) -> None:
    n_callers, n_rounds = 8, 15
    calls = runtime.batches.batches

    async def caller() -> None:
        for _ in range(n_rounds):
            assert near(await runtime.predict_async([[555.0, "a"]]), [1110.0])

    async def all_callers() -> None:
        await asyncio.gather(*(caller() for _ in range(n_callers)))

    asyncio.run(all_callers())
    # Who takes only what waits at the moment answers one and seven in turn: two calls a round.
    assert runtime.batches.batches - calls < 1.6 * n_rounds


def test_only_the_guilty_request_of_a_batch_fails(runtime: IsolatedRuntime) -> None:
    async def many() -> list[Any]:
        values = [1.0, -1.0, 2.0]
        asked = (runtime.predict_async([[value, "a"]]) for value in values)
        return await asyncio.gather(*asked, return_exceptions=True)

    first, second, third = asyncio.run(many())
    assert near([first[0], third[0]], [2.0, 4.0])
    assert isinstance(second, JobFailed)
    assert "ValueError: x must not be negative" in second.message


def test_a_killed_child_is_replaced_and_no_request_fails(runtime: IsolatedRuntime) -> None:
    runtime.predict([[1.0, "a"]])
    killed, starts = runtime.pid, runtime.starts
    assert killed is not None
    with ThreadPoolExecutor(4) as pool:
        before = [pool.submit(runtime.predict, [[float(i), "a"]]) for i in range(20)]
        os.kill(killed, signal.SIGKILL)
        after = [pool.submit(runtime.predict, [[float(i), "a"]]) for i in range(20)]
        for i in range(20):
            assert near(before[i].result(), [2.0 * i])
            assert near(after[i].result(), [2.0 * i])
    assert runtime.starts == starts + 1
    assert runtime.pid != killed
    assert not is_alive(killed)


def test_a_request_that_ends_the_child_fails_alone(runtime: IsolatedRuntime) -> None:
    with pytest.raises(Unavailable, match="exit status 66"):
        runtime.predict([[666.0, "a"]])
    assert near(runtime.predict([[4.0, "a"]]), [8.0])


def test_a_child_that_hangs_is_replaced(runtime: IsolatedRuntime) -> None:
    hung = runtime.pid
    with pytest.raises(Unavailable, match="longer than 2 s"):
        runtime.predict([[999.0, "a"]])
    assert hung is not None and not is_alive(hung)
    assert near(runtime.predict([[4.0, "a"]]), [8.0])


def test_a_child_that_leaks_is_replaced_between_calls_and_no_request_fails(runtime: IsolatedRuntime) -> None:
    runtime.predict([[1.0, "a"]])
    leaking, starts, replaced = runtime.pid, runtime.starts, runtime.replaced
    assert leaking is not None
    runtime.limits = ProcessLimits(call_seconds=2.0, bytes=int(1.6 * private_bytes(leaking)))

    def leaked() -> bool:
        assert near(runtime.predict([[777.0, "a"]]), [1554.0])
        return runtime.pid != leaking

    until(leaked, 60)
    assert (runtime.starts, runtime.replaced) == (starts + 1, replaced + 1)
    assert near(runtime.predict([[4.0, "a"]]), [8.0])
    assert not is_alive(leaking)
    runtime.limits = ProcessLimits(call_seconds=2.0)


def test_a_successor_takes_over_though_nothing_is_asked(runtime: IsolatedRuntime) -> None:
    runtime.predict([[1.0, "a"]])
    leaking = runtime.pid
    runtime.limits = ProcessLimits(call_seconds=2.0, bytes=1)
    for _ in range(20):
        runtime.predict([[777.0, "a"]])
    until(lambda: runtime.pid != leaking, 60)
    runtime.limits = ProcessLimits(call_seconds=2.0)


def test_a_child_whose_successor_does_not_start_goes_on(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "v1", awkward_model())
    runtime = IsolatedRuntime(folder, SIGNATURE, limits=ProcessLimits(bytes=1))
    try:
        child, whole = runtime.pid, (folder / "model/model.pkl").read_bytes()
        (folder / "model/model.pkl").write_bytes(b"not a pickle")

        def tried() -> bool:
            assert near(runtime.predict([[777.0, "a"]]), [1554.0])
            return runtime.starts == 2

        until(tried, 60)
        for _ in range(20):
            assert near(runtime.predict([[4.0, "a"]]), [8.0])
        assert runtime.pid == child
        (folder / "model/model.pkl").write_bytes(whole)
        until(lambda: near(runtime.predict([[4.0, "a"]]), [8.0]) and runtime.pid != child, 60)
    finally:
        runtime.close()


def test_a_model_that_is_large_from_the_start_is_not_replaced_for_ever(tmp_path: Path) -> None:
    runtime = IsolatedRuntime(bundle(tmp_path / "v1", awkward_model()), SIGNATURE, limits=ProcessLimits(bytes=1))
    try:
        for _ in range(10):
            runtime.predict([[1.0, "a"]])
            time.sleep(isolated.LOOK_SECONDS)
        assert (runtime.starts, runtime.replaced) == (1, 0)
    finally:
        runtime.close()


def test_a_hung_call_makes_the_expected_wait_grow_and_its_end_shrinks_it(runtime: IsolatedRuntime) -> None:
    runtime.predict([[1.0, "a"]])
    assert runtime.expected_wait() < 0.1
    with ThreadPoolExecutor(1) as pool:
        hung = pool.submit(runtime.predict, [[999.0, "a"]])
        until(lambda: runtime.expected_wait() > 1.0)
        assert isinstance(hung.exception(), Unavailable)
    assert near(runtime.predict([[4.0, "a"]]), [8.0])
    until(lambda: runtime.expected_wait() == 0.0)
    assert runtime._times.expected(1) < 1.0, "one that hung says nothing of the others"


def test_requests_that_nobody_waits_for_are_not_asked_again(runtime: IsolatedRuntime) -> None:
    runtime.predict([[1.0, "a"]])
    starts = runtime.starts

    async def late() -> list[Any]:
        now = time.monotonic()
        asked = (runtime.predict_async([[999.0, "a"]], now + 1.0) for _ in range(5))
        return await asyncio.gather(*asked, return_exceptions=True)

    assert [type(one) for one in asyncio.run(late())] == [Unavailable] * 5
    assert near(runtime.predict([[4.0, "a"]]), [8.0])
    assert runtime.starts <= starts + 2


def test_a_model_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "v1", awkward_model())
    (folder / "model/model.pkl").write_bytes(b"not a pickle")
    with pytest.raises(Unavailable, match=r"did not start: .*UnpicklingError"):
        IsolatedRuntime(folder, SIGNATURE)


def test_the_loaded_runtime_probes_and_closes(tmp_path: Path) -> None:
    loaded = load_runtime(bundle(tmp_path / "v1", awkward_model()), Sealed("isolated", SIGNATURE))
    assert loaded.is_blocking
    assert loaded.probe() == 1
    assert near(asyncio.run(loaded.predict_async([[1.0, "a"]])), [2.0])
    loaded.close()
    loaded.close()
    with pytest.raises(Unavailable, match="closed"):
        loaded.predict([[1.0, "a"]])


def test_a_probe_that_differs_is_refused(tmp_path: Path) -> None:
    probe = '{"rows":[[1.5,"b"]],"outputs":[4.1],"tolerance":1e-9}'
    loaded = load_runtime(bundle(tmp_path / "v1", awkward_model(), probe), Sealed("isolated", SIGNATURE))
    with pytest.raises(Corrupted, match=r"Probe row 0: expected 4\.1"):
        loaded.probe()
    loaded.close()


def test_the_child_dies_with_its_parent(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "v1", awkward_model())
    code = f"""
from pathlib import Path
from tests_signature import SIGNATURE
from relevo.runtimes.isolated import IsolatedRuntime, ProcessLimits
import time
runtime = IsolatedRuntime(Path({str(folder)!r}), SIGNATURE)
print(runtime.pid, flush=True)
time.sleep(60)
"""
    (tmp_path / "tests_signature.py").write_text(
        "from relevo.contract.model import Task\nfrom relevo.runtimes.model import *\n"
        "SIGNATURE = Signature(Task.REGRESSION,"
        " (Column('x', ColumnType.FLOAT), Column('name', ColumnType.TEXT)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_alive(child)
        parent.kill()
    until(lambda: not is_alive(child))


def test_a_model_saved_by_mlflow_is_read_and_mlflow_reads_ours(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "v1", awkward_model(), '{"rows":[[2.0,null]],"outputs":[5.0],"tolerance":1e-9}')
    ours = tmp_path / "ours"
    for path, content in model_files(awkward_model()).items():
        (ours / path).parent.mkdir(parents=True, exist_ok=True)
        (ours / path).write_bytes(content)
    code = f"""
import mlflow.sklearn, pandas as pd, shutil
assert mlflow.sklearn.load_model({str(ours / "model")!r}).predict
from sklearn.linear_model import LinearRegression
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline
frame = pd.DataFrame({{"x": [0.0, 1.0, 2.0], "name": pd.Categorical(["a", "b", None], categories=["a", "b"])}})
model = make_pipeline(make_column_transformer(("passthrough", ["x"])), LinearRegression()).fit(frame, [1.0, 3.0, 5.0])
shutil.rmtree({str(folder / "model")!r})
mlflow.sklearn.save_model(model, {str(folder / "model")!r}, serialization_format="cloudpickle", pip_requirements=[])
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True)
    loaded = load_runtime(folder, Sealed("isolated", SIGNATURE))
    assert loaded.probe() == 1
    loaded.close()


LIGHT = """
import sys
import relevo.runtimes.loading, relevo.runtimes.decoders, relevo.registry.bundles
forbidden = {"mlflow", "dbos", "fastapi", "pandas", "sklearn", "polars", "deltalake", "lightgbm", "scipy", "numpy"}
print(sorted(forbidden & set(sys.modules)))
"""


def test_loading_needs_no_heavy_module() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_no_secret_of_ours_reaches_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RELEVO_STATE_URL", "MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "secret")
    assert "secret" not in isolated_process.environment().values()


def test_an_unknown_runtime_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="Unknown runtime 'onnx'"):
        load_runtime(bundle(tmp_path / "v1", None), Sealed("onnx", SIGNATURE))
