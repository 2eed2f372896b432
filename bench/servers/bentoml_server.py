"""BentoML, with batches of at most ``BATCH`` rows when that is more than 1. ``bentoml serve FILE:Service``."""

from __future__ import annotations

import os
from typing import Any

import bentoml
import model

BATCH = int(os.environ["BATCH"])
BATCHES = {"batchable": True, "max_batch_size": BATCH, "max_latency_ms": 1_000} if BATCH > 1 else {}


@bentoml.service(workers=1, traffic={"timeout": 60}, metrics={"enabled": False}, logging={"access": {"enabled": False}})
class Service:
    def __init__(self) -> None:
        self.ask = model.load()

    # A coroutine: handing each call to a thread costs more than it gives on one core.
    @bentoml.api(route="/predict", **BATCHES)
    async def predict(self, rows: list[list[Any]]) -> list[float]:
        return self.ask(rows)
