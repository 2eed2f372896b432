"""Versions whose original model answers in a child process, with models that do what they must not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
from gateway_home import ENDPOINT, SIGNATURE, Home

MLMODEL = b"flavors:\n  sklearn:\n    code: null\n    pickled_model: model.pkl\n    serialization_format: cloudpickle\n"


def slow_model() -> Any:
    """A model that takes as many milliseconds a call as the longest distance, and doubles it."""

    class Slow:
        def predict(self, frame: Any) -> Any:
            import time

            time.sleep(float(frame.distance.max()) / 1000)
            return frame.distance * 2

    return Slow()


def seal_original(home: Home, version: int, model: Any) -> str:
    """A sealed bundle of a model that doubles the distance. Pickled by value, as a team's own class would be."""
    files = {
        "model/MLmodel": MLMODEL,
        "model/model.pkl": cloudpickle.dumps(model),
        "runtime/categories.json": b'{"carrier": ["UA"]}',
        "runtime/probe.json": b'{"rows":[[1.5,"UA"]],"outputs":[3.0],"tolerance":1e-9}',
    }
    return home.keep(version, "isolated", SIGNATURE, files)


def serve_original(home: Home, model: Any, version: int = 1) -> None:
    """Put the model into production, and wait until the worker has loaded it."""
    bundle = seal_original(home, version, model)
    with home.state.transaction() as tx:
        home.serving.place(tx, ENDPOINT, version, bundle)
    home.route((version, 100))
    if not home.serving.live_workers():
        home.start()
    home.serving.await_loaded(ENDPOINT, version, 60)


def children(pid: int) -> list[int]:
    """The process ids of a worker's children."""
    return [int(one) for task in Path(f"/proc/{pid}/task").iterdir() for one in (task / "children").read_text().split()]
