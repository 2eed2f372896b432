"""LitServe, with batches of at most ``BATCH`` requests when that is more than 1. ``python litserve_server.py PORT``."""

from __future__ import annotations

import os
import sys
from typing import Any

import litserve
import model

BATCH = int(os.environ["BATCH"])

Rows = list[list[Any]]


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.ask = model.load()

    # LitServe reads the annotation: without one, the body is any JSON.
    def decode_request(self, request) -> Rows:
        return request["rows"]

    def predict(self, rows: Rows) -> list[float]:
        return self.ask(rows)

    def encode_response(self, predictions: list[float]) -> dict[str, list[float]]:
        return {"predictions": predictions}


class BatchApi(Api):
    def batch(self, requests: list[Rows]) -> list[Rows]:
        return requests

    def predict(self, requests: list[Rows]) -> list[list[float]]:
        answers = iter(self.ask([row for rows in requests for row in rows]))
        return [[next(answers) for _ in rows] for rows in requests]

    def unbatch(self, answers: list[list[float]]) -> list[list[float]]:
        return answers


if __name__ == "__main__":
    api = BatchApi(max_batch_size=BATCH, batch_timeout=0.005) if BATCH > 1 else Api()
    server = litserve.LitServer(
        api, accelerator="cpu", devices=1, workers_per_device=1, fast_queue=True, api_path="/predict"
    )
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=1,
        generate_client_file=False,
        pretty_logs=False,
        log_level="warning",
        access_log=False,
        loop="uvloop",
        http="httptools",
    )
