"""The limit of the gateway: uvicorn that decodes the same body and answers a constant. ``python bench/bare.py FD``."""

from __future__ import annotations

import gc
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import uvicorn
import uvloop


class Split(msgspec.Struct):
    columns: list[str]
    data: list[list[str | int | float | None]]


class Body(msgspec.Struct):
    dataframe_split: Split


#: As long as a real answer.
ANSWER = msgspec.json.encode(
    {"predictions": [0.12345678901234567], "version": 1, "prediction_ids": ["0123456789abcdefghijklmnopqrstuvwxyzABCD"]}
)
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ANSWER))]
decode = msgspec.json.Decoder(Body).decode


async def application(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    message = await receive()
    body = message["body"]
    while message["more_body"]:
        message = await receive()
        body += message["body"]
    decode(body)
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})


def main() -> None:
    # As the gateway's worker configures it.
    config = uvicorn.Config(
        application,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        backlog=2048,
    )
    gc.collect()
    gc.freeze()
    uvloop.run(uvicorn.Server(config).serve(sockets=[socket.socket(fileno=int(sys.argv[1]))]))


if __name__ == "__main__":
    main()
