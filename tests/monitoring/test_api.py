import asyncio
from datetime import UTC, datetime, timedelta
from functools import partialmethod
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from relevo.errors import RelevoError
from relevo.identity.api import declared_permissions
from relevo.identity.model import Permission, Role
from relevo.identity.service import Identity
from relevo.monitoring.api import router

BEGIN = datetime(2013, 4, 1, tzinfo=UTC)
WEEK = timedelta(days=7)
WAIT = timedelta(hours=30)

World = Any
Traffic = Any


class Client:
    """Calls to the routes in this process, as ``ada`` unless another token is given."""

    def __init__(self, app: FastAPI, tokens: dict[str, str]) -> None:
        self._transport = httpx.ASGITransport(app)
        self._tokens = tokens

    def __call__(self, method: str, path: str, *, by: str = "ada", **options: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._transport, base_url="http://relevo") as http:
                headers = {"authorization": f"Bearer {self._tokens[by]}"}
                return await http.request(method, path, headers=headers, **options)

        return asyncio.run(send())

    get = partialmethod(__call__, "GET")
    post = partialmethod(__call__, "POST")


@pytest.fixture
def client(local_world: World) -> Client:
    identity = Identity(local_world.state)
    app = FastAPI()
    app.include_router(router)
    app.state.services = SimpleNamespace(identity=identity, monitoring=local_world.monitoring, state=local_world.state)

    @app.exception_handler(RelevoError)
    async def answer(_: Request, error: RelevoError) -> JSONResponse:
        return JSONResponse(error.as_json(), error.http_status)

    tokens = {}
    with local_world.state.transaction() as tx:
        identity.bootstrap(tx)
        for name, role in (("ada", Role.ENGINEER), ("vi", Role.VIEWER)):
            identity.create_principal(tx, name, role)
            tokens[name] = identity.create_token(tx, name, role, note="test")
    return Client(app, tokens)


def test_every_route_declares_its_permission() -> None:
    app = FastAPI(openapi_url=None)
    app.include_router(router)
    declared = declared_permissions(app)
    assert declared.pop("POST /api/alerts/{alert_id}/resolve") is Permission.OPERATE
    assert declared.pop("POST /api/models/{model}/features/parity") is Permission.OPERATE
    assert len(declared) == 6 and set(declared.values()) == {Permission.READ}


def test_windows_and_their_revisions_are_listed(client: Client, local_world: World) -> None:
    local_world.send(0)
    local_world.watch(BEGIN + WEEK)
    local_world.watch(BEGIN + WEEK + WAIT)
    (window,) = client.get("/api/models/delay/windows").json()["windows"]
    assert (window["state"], window["predictions"], window["end"]) == ("final", 1000, "2013-04-08T00:00:00Z")
    revisions = client.get(f"/api/models/delay/windows/{window['end']}").json()["revisions"]
    assert [one["state"] for one in revisions] == ["provisional", "final"]
    assert client.get("/api/models/delay/windows/2013-04-09T00:00:00Z").status_code == 404
    assert client.get("/api/models/other/windows").json()["error"]["code"] == "not_found"


def test_performance_is_given_by_month_and_by_window(client: Client, local_world: World) -> None:
    local_world.seal(9, weight=0.0)
    for week in range(5):
        local_world.send(week)
    local_world.advance(BEGIN + 5 * WEEK)
    months = client.get("/api/models/delay/performance", params={"version": 9}).json()["periods"]
    assert [month["start"][:7] for month in months] == ["2013-04", "2013-05"]
    assert months[0]["rescored"]["roc_auc"]["value"] == 0.5
    weeks = client.get("/api/models/delay/performance", params={"by": "window"}).json()["periods"]
    assert [week["predictions"] for week in weeks] == [1000] * 5
    assert client.get("/api/models/delay/performance", params={"by": "year"}).status_code == 422


def test_an_alert_is_resolved_by_who_may(client: Client, local_world: World, traffic: Traffic) -> None:
    local_world.send(0, traffic(labelled=0.1))
    local_world.watch(BEGIN + WEEK + WAIT)
    (alert,) = client.get("/api/alerts").json()["alerts"]
    assert (alert["kind"], alert["resolved_at"]) == ("labels", None)
    path = f"/api/alerts/{alert['id']}/resolve"
    assert client.post(path, by="vi").status_code == 403
    resolved = client.post(path, json={"reason": "known"}).json()["alert"]
    assert resolved["resolved_at"] is not None
    assert client.get("/api/alerts").json()["alerts"] == []
    assert client.get("/api/alerts", params={"state": "all"}).json()["alerts"] == [resolved]
    assert client.post(path).status_code == 409
