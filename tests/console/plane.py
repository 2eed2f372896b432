"""The control plane in this process over a home folder: real services, no other process; and a browser for it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partialmethod
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from relevo.app.control import build
from relevo.app.services import Services, compose
from relevo.identity.model import Role
from relevo.platform.settings import Settings
from relevo.platform.state import metadata


class Browser:
    """Requests to the application in this process, one at a time, with a browser's memory for cookies."""

    def __init__(self, app: FastAPI) -> None:
        self._transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        self._cookies = httpx.Cookies()

    def __call__(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            async with httpx.AsyncClient(
                transport=self._transport, base_url="http://relevo", cookies=self._cookies
            ) as http:
                answer = await http.request(method, path, headers={"accept": "text/html"}, **options)
                self._cookies = http.cookies
                return answer

        return asyncio.run(send())

    get = partialmethod(__call__, "GET")
    post = partialmethod(__call__, "POST")

    def sign_in(self, token: str) -> None:
        assert self.post("/login", data={"token": token}).status_code == 303

    def csrf(self, page: str = "/logout") -> str:
        return self.get(page).text.split('name="csrf_token" value="')[1].split('"')[0]


Plane = tuple[FastAPI, Services, dict[str, str]]


def control_plane(home: Path) -> Plane:
    """The application over an empty home, its services, and a token for each of some people."""
    services = compose(Settings(home=home))
    tokens = {}
    with services.state.transaction() as tx:
        metadata.create_all(tx)
        tokens["admin"] = services.identity.bootstrap(tx) or ""
        for name, role in (
            ("maya", Role.ENGINEER),
            ("ruth", Role.REVIEWER),
            ("vera", Role.VIEWER),
            ("airline", Role.APPLICATION),
        ):
            services.identity.create_principal(tx, name, role)
            tokens[name] = services.identity.create_token(tx, name, role, note="")
    app = build(services)
    return app, services, tokens


@contextlib.contextmanager
def installation(home: Path, plant: Callable[[Services], object] | None = None) -> Iterator[Plane]:
    """``control_plane`` with what ``plant`` puts there, closed at the end."""
    app, services, tokens = control_plane(home)
    if plant is not None:
        plant(services)
    yield app, services, tokens
    services.close()


@contextlib.contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The address of the application over real HTTP; its workflows are not started."""

    @contextlib.asynccontextmanager
    async def no_workflows(_: FastAPI) -> AsyncIterator[None]:
        yield

    before, app.router.lifespan_context = app.router.lifespan_context, no_workflows
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(20)
    listening.close()
    app.router.lifespan_context = before
