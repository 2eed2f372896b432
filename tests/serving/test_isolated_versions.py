"""A version whose original model answers in a child process, through the gateway."""

from __future__ import annotations

import os
import signal
from typing import Any

from gateway_home import ENDPOINT, Home
from originals import children, seal_original


def model() -> Any:
    """A model that cannot answer far distances. Pickled by value, as a team's own class would be."""

    class Near:
        def predict(self, frame: Any) -> Any:
            if (frame.distance > 1000).any():
                raise ValueError("too far")
            return frame.distance * 2

    return Near()


def test_an_isolated_version_answers_fails_alone_and_leaves_no_process(home: Home) -> None:
    home.endpoint("durable")
    home.place(1)
    bundle = seal_original(home, 2, model())
    with home.state.transaction() as tx:
        home.serving.place(tx, ENDPOINT, 2, bundle)
    home.route((1, 100))
    worker = home.start()
    home.serving.await_loaded(ENDPOINT, 2, 60)
    home.route((1, 50), (2, 50))
    home.eventually(lambda: all(one.revisions[ENDPOINT] == 2 for one in home.serving.live_workers()))
    with home.client() as client:
        near = [home.predict(client, 3.0).json() for _ in range(10)]
        assert {(one["version"], *one["predictions"]) for one in near} == {(1, 1.0), (2, 6.0)}
        far = [home.predict(client, 2000.0).json() for _ in range(10)]
        assert {one["version"] for one in far} == {1}
        home.eventually(lambda: home.count(2).failed >= 4)
        failed = [record for record in home.records() if record.status == "failed"]
        assert "too far" in (failed[0].error or "")

        (child,) = children(worker.pid)
        os.kill(child, signal.SIGKILL)
        assert [home.predict(client, 3.0).status_code for _ in range(4)] == [200] * 4

        home.route((1, 100))
        with home.state.transaction() as tx:
            home.serving.unplace(tx, ENDPOINT, 2)
        home.eventually(lambda: children(worker.pid) == [])
