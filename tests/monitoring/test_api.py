from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient

from relevo.errors import RelevoError
from relevo.identity.api import declared_permission
from relevo.identity.model import Permission, Role
from relevo.identity.service import Identity
from relevo.monitoring.api import router

BEGIN = datetime(2013, 4, 1, tzinfo=UTC)
WEEK = timedelta(days=7)
WAIT = timedelta(hours=30)

World = Any
Traffic = Any


@pytest.fixture
def client(local_world: World) -> Iterator[TestClient]:
    identity = Identity(local_world.state)
    app = FastAPI()
    app.include_router(router)
    app.state.services = SimpleNamespace(identity=identity, monitoring=local_world.monitoring, state=local_world.state)

    @app.exception_handler(RelevoError)
    def answer(_: Request, error: RelevoError) -> JSONResponse:
        return JSONResponse(error.as_json(), error.http_status)

    with local_world.state.transaction() as tx:
        identity.bootstrap(tx)
        identity.create_principal(tx, "ada", Role.ENGINEER)
        identity.create_principal(tx, "vi", Role.VIEWER)
        local_world.tokens = {
            name: identity.create_token(tx, name, role, note="test")
            for name, role in (("ada", Role.ENGINEER), ("vi", Role.VIEWER))
        }
    with TestClient(app) as made:
        made.headers["authorization"] = f"Bearer {local_world.tokens['ada']}"
        yield made


def test_every_route_declares_its_permission() -> None:
    declared = {route.path: declared_permission(route) for route in router.routes}  # type: ignore[attr-defined]
    assert declared.pop("/api/alerts/{alert_id}/resolve") is Permission.OPERATE
    assert set(declared.values()) == {Permission.READ}


def test_windows_and_their_revisions_are_listed(client: TestClient, local_world: World) -> None:
    local_world.send(0)
    local_world.watch(BEGIN + WEEK)
    local_world.watch(BEGIN + WEEK + WAIT)
    (window,) = client.get("/api/models/delay/windows").json()["windows"]
    assert (window["state"], window["predictions"], window["end"]) == ("final", 1000, "2013-04-08T00:00:00Z")
    revisions = client.get(f"/api/models/delay/windows/{window['end']}").json()["revisions"]
    assert [one["state"] for one in revisions] == ["provisional", "final"]
    assert client.get("/api/models/delay/windows/2013-04-09T00:00:00Z").status_code == 404
    assert client.get("/api/models/other/windows").json()["error"]["code"] == "not_found"


def test_performance_is_given_by_month_and_by_window(client: TestClient, local_world: World) -> None:
    for week in range(5):
        local_world.send(week)
    local_world.advance(BEGIN + 5 * WEEK)
    months = client.get("/api/models/delay/performance", params={"version": 9}).json()["periods"]
    assert [month["start"][:7] for month in months] == ["2013-04", "2013-05"]
    assert months[0]["rescored"]["roc_auc"]["value"] == 0.5
    weeks = client.get("/api/models/delay/performance", params={"by": "window"}).json()["periods"]
    assert [week["predictions"] for week in weeks] == [1000] * 5
    assert client.get("/api/models/delay/performance", params={"by": "year"}).status_code == 422


def test_an_alert_is_resolved_by_who_may(client: TestClient, local_world: World, traffic: Traffic) -> None:
    local_world.send(0, traffic(labelled=0.1))
    local_world.watch(BEGIN + WEEK + WAIT)
    (alert,) = client.get("/api/alerts").json()["alerts"]
    assert (alert["kind"], alert["resolved_at"]) == ("labels", None)
    path = f"/api/alerts/{alert['id']}/resolve"
    viewer = {"authorization": f"Bearer {local_world.tokens['vi']}"}
    assert client.post(path, headers=viewer).status_code == 403
    resolved = client.post(path, json={"reason": "known"}).json()["alert"]
    assert resolved["resolved_at"] is not None
    assert client.get("/api/alerts").json()["alerts"] == []
    assert client.get("/api/alerts", params={"state": "all"}).json()["alerts"] == [resolved]
    assert client.post(path).status_code == 409
