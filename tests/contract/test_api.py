"""Contracts over HTTP: who may plan, apply and read, and what they get."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from relevo.contract import api
from relevo.contract.model import AppliedContract
from relevo.contract.service import ContractService
from relevo.contract.upload import read_project
from relevo.errors import RelevoError
from relevo.identity.model import Principal, Role
from relevo.identity.service import Identity
from relevo.platform.state import State

_SPEC = importlib.util.spec_from_file_location("contract_project", Path(__file__).with_name("project.py"))
assert _SPEC and _SPEC.loader
project = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(project)

pytestmark = pytest.mark.parametrize("empty_state", ["sqlite"], indirect=True)


@dataclass
class Services:
    state: State
    identity: Identity
    contracts: ContractService
    started: list[tuple[str, int, str]] = field(default_factory=list)

    def after_apply(self, applied: AppliedContract, actor: Principal) -> str:
        self.started.append((applied.model, applied.revision, actor.name))
        return f"deliver-{applied.model}-{applied.revision}"


@pytest.fixture
def services(state: State, contracts: ContractService) -> Services:
    return Services(state, Identity(state), contracts)


class Client:
    """Calls the application in its own process, one request at a time."""

    def __init__(self, app: FastAPI) -> None:
        self._transport = httpx.ASGITransport(app)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self._send("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self._send("POST", path, **options)

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._transport, base_url="http://relevo", timeout=60) as client:
                return await client.request(method, path, **options)

        return asyncio.run(send())


@pytest.fixture
def client(services: Services) -> Client:
    app = FastAPI()
    app.state.services = services
    app.include_router(api.router)

    @app.exception_handler(RelevoError)
    def answer(_: Request, error: RelevoError) -> JSONResponse:
        return JSONResponse(error.as_json(), status_code=error.http_status)

    return Client(app)


def _bearer(services: Services, role: Role) -> dict[str, str]:
    with services.state.transaction() as tx:
        services.identity.create_principal(tx, role.value, role)
        token = services.identity.create_token(tx, role.value, role, note="test")
    return {"Authorization": f"Bearer {token}"}


def test_a_project_is_planned_applied_and_read(client: Client, services: Services, tmp_path: Path) -> None:
    upload = read_project(project.write(tmp_path / "p"))
    engineer, viewer = _bearer(services, Role.ENGINEER), _bearer(services, Role.VIEWER)

    planned = client.post("/api/contracts/plan", content=upload, headers=engineer).json()
    assert (planned["revision"], planned["is_empty"], planned["is_applied"]) == (1, False, False)
    assert {"field": "owner", "old": None, "new": "logistics"} in planned["differences"]
    assert services.started == []

    applied = client.post("/api/contracts", content=upload, headers=engineer).json()
    assert (applied["release"], applied["is_applied"]) == ("deliver-parcels-1", True)
    again = client.post("/api/contracts", content=upload, headers=engineer).json()
    assert (again["is_empty"], again["release"]) == (True, None)
    assert services.started == [("parcels", 1, "engineer")]

    listed = client.get("/api/contracts", headers=viewer).json()
    assert [(each["model"], each["revision"], each["applied_by"]) for each in listed] == [("parcels", 1, "engineer")]
    read = client.get("/api/contracts/parcels", headers=viewer).json()
    assert read["text"] == project.CONTRACT
    assert read["contract"]["label"]["available_after"] == "PT21600S"
    assert client.get("/api/contracts/parcels?revision=1", headers=viewer).json() == read
    assert client.get("/api/contracts/parcel", headers=viewer).status_code == 404


def test_mistakes_come_back_with_their_lines(client: Client, services: Services, tmp_path: Path) -> None:
    engineer = _bearer(services, Role.ENGINEER)
    text = project.CONTRACT.replace("parcels.train:train", "parcels.train:fit")
    upload = read_project(project.write(tmp_path / "p", contract=text))
    for path in ("/api/contracts/plan", "/api/contracts"):
        answer = client.post(path, content=upload, headers=engineer)
        assert answer.status_code == 400
        assert answer.json()["error"]["message"].startswith("relevo.yaml:14: training.entry: expected a function of")
    assert services.started == []


def test_too_much_is_refused_before_it_is_read(client: Client, services: Services) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(60):
            yield bytes(1024 * 1024)

    answer = client.post("/api/contracts", content=chunks(), headers=_bearer(services, Role.ENGINEER))
    assert answer.status_code == 413


def test_nobody_plans_applies_or_reads_without_the_permission(client: Client, services: Services) -> None:
    viewer = _bearer(services, Role.VIEWER)
    for path in ("/api/contracts/plan", "/api/contracts"):
        assert client.post(path, content=b"", headers=viewer).status_code == 403
        assert client.post(path, content=b"").status_code == 401
    assert client.get("/api/contracts").status_code == 401
