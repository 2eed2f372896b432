"""FastAPI and pandas. ``uvicorn --factory fastapi_server:application``."""

from __future__ import annotations

from typing import Any

import model
from fastapi import FastAPI
from pydantic import BaseModel


class Question(BaseModel):
    rows: list[list[Any]]


class Answer(BaseModel):
    predictions: list[float]


def application() -> FastAPI:
    predict = model.load(with_pandas=True)
    app = FastAPI()

    @app.get("/health")
    async def health() -> str:
        return "ok"

    # A coroutine: handing each call to a thread costs more than it gives on one core.
    @app.post("/predict")
    async def answer(question: Question) -> Answer:
        return Answer(predictions=predict(question.rows))

    return app
