import asyncio
import base64
from dataclasses import dataclass
from functools import partialmethod
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Form, Request, Response
from fastapi.responses import JSONResponse

from relevo.errors import RelevoError
from relevo.identity import api
from relevo.identity.api import declared_permissions, requires
from relevo.identity.model import Permission, Principal, Role
from relevo.identity.service import Identity
from relevo.ledger import api as ledger_api
from relevo.ledger.service import Ledger
from relevo.platform.state import State


@dataclass
class Services:
    state: State
    identity: Identity
    ledger: Ledger


@pytest.fixture
def services(state: State) -> Services:
    return Services(state, Identity(state), Ledger(state))


@pytest.fixture
def tokens(services: Services) -> dict[str, str]:
    made = {}
    with services.state.transaction() as tx:
        made["admin"] = services.identity.bootstrap(tx) or ""
        for role in (Role.VIEWER, Role.APPLICATION):
            services.identity.create_principal(tx, role.value, role)
            made[role.value] = services.identity.create_token(tx, role.value, role, note="")
    return made


def application(services: Services) -> FastAPI:
    app = FastAPI()
    app.state.services = services
    app.include_router(api.router)
    app.include_router(ledger_api.router)

    @app.exception_handler(RelevoError)
    async def _answer(_: Request, error: RelevoError) -> JSONResponse:
        return JSONResponse(error.as_json(), error.http_status)

    @app.post("/sign-in")
    def sign_in(token: Annotated[str, Form()]) -> Response:
        response = Response()
        api.set_session_cookie(response, services.identity.open_session(token), is_https=False)
        return response

    @app.post("/form")
    def form(text: Annotated[str, Form()], who: Annotated[Principal, Depends(requires(Permission.READ))]) -> str:
        return f"{who.name} {text}"

    @app.get("/page")
    def page(request: Request, _: Annotated[Principal, Depends(requires(Permission.READ))]) -> str:
        return str(request.state.csrf)

    return app


class Client:
    """Calls to the application in this process, one at a time, with a browser's memory for cookies."""

    def __init__(self, app: FastAPI) -> None:
        self._transport = httpx.ASGITransport(app)
        self._cookies = httpx.Cookies()

    def __call__(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            async with httpx.AsyncClient(
                transport=self._transport, base_url="http://relevo", cookies=self._cookies
            ) as http:
                response = await http.request(method, path, **options)
                self._cookies = http.cookies
                return response

        return asyncio.run(send())

    get = partialmethod(__call__, "GET")
    post = partialmethod(__call__, "POST")
    delete = partialmethod(__call__, "DELETE")


@pytest.fixture
def client(services: Services) -> Client:
    return Client(application(services))


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_a_route_needs_a_token(client: Client, tokens: dict[str, str]) -> None:
    answer = client.get("/api/me")
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "not_authenticated"
    assert client.get("/api/me", headers=bearer("rlv_wrong")).status_code == 401
    assert client.get("/api/me", headers={"authorization": "Digest x"}).status_code == 401
    assert client.get("/api/me", headers=bearer(tokens["admin"])).json() == {"name": "admin", "role": "admin"}


def test_basic_authentication_takes_the_token_as_password(client: Client, tokens: dict[str, str]) -> None:
    credentials = base64.b64encode(f"anybody:{tokens['viewer']}".encode()).decode()
    answer = client.get("/api/me", headers={"authorization": f"Basic {credentials}"})
    assert answer.json() == {"name": "viewer", "role": "viewer"}
    assert client.get("/api/me", headers={"authorization": "Basic !!"}).status_code == 401


def test_the_role_must_hold_the_permission(client: Client, tokens: dict[str, str]) -> None:
    answer = client.get("/api/tokens", headers=bearer(tokens["viewer"]))
    assert answer.status_code == 403
    assert "administer" in answer.json()["error"]["message"]
    assert client.get("/api/me", headers=bearer(tokens["application"])).status_code == 403


def test_a_session_reads_with_its_cookie_and_changes_only_with_csrf(client: Client, tokens: dict[str, str]) -> None:
    signed_in = client.post("/sign-in", data={"token": tokens["viewer"]})
    assert {"httponly", "samesite=strict", "path=/"} <= {
        part.strip().lower() for part in signed_in.headers["set-cookie"].split(";")
    }
    csrf = client.get("/page").json()
    assert len(csrf) == 64
    assert client.post("/form", data={"text": "x"}).status_code == 403
    assert client.post("/form", data={"text": "x", "csrf_token": "0" * 64}).status_code == 403
    assert client.post("/form", data={"text": "x", "csrf_token": csrf}).json() == "viewer x"
    assert client.post("/form", data={"text": "x"}, headers={"x-csrf-token": csrf}).json() == "viewer x"
    assert client.post("/form", data={"text": "x"}, headers=bearer(tokens["admin"])).json() == "admin x"


def test_tokens_and_principals_are_made_listed_and_ended(client: Client, tokens: dict[str, str]) -> None:
    admin = bearer(tokens["admin"])
    made = client.post("/api/principals", headers=admin, json={"name": "ana", "role": "reviewer"})
    assert made.status_code == 201 and made.json()["created_by"] == "admin"
    token = client.post(
        "/api/tokens", headers=admin, json={"principal": "ana", "note": "laptop", "rate": "5/minute"}
    ).json()
    assert token["role"] == "reviewer"
    assert client.get("/api/me", headers=bearer(token["token"])).json()["name"] == "ana"
    listed = client.get("/api/tokens", headers=admin)
    assert token["token"] not in listed.text
    assert token["id"] in [each["id"] for each in listed.json()]
    assert {each["id"]: each["rate"] for each in listed.json()}[token["id"]] == "5/min"
    assert client.delete(f"/api/tokens/{token['id']}", headers=admin).status_code == 204
    assert client.get("/api/me", headers=bearer(token["token"])).status_code == 401
    assert client.delete("/api/principals/ana", headers=admin).status_code == 204
    by_name = {each["name"]: each for each in client.get("/api/principals", headers=admin).json()}
    assert by_name["ana"]["disabled_at"] is not None
    newest = client.get("/api/ledger", headers=admin, params={"limit": 1}).json()[0]
    assert (newest["actor"], newest["action"], newest["subject"]) == ("admin", "principal disabled", "principal/ana")
    assert client.get("/api/ledger/verification", headers=admin).json()["entries"] >= 4


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"principal": "nobody", "role": "viewer"}, 404),
        ({"principal": "nobody"}, 404),
        ({"principal": "viewer", "role": "admin"}, 403),
        ({"principal": "viewer", "role": "king"}, 422),
        ({"principal": "viewer", "expires_at": "2030-01-01T00:00:00"}, 422),
        ({"principal": "viewer", "expires_at": "2020-01-01T00:00:00Z"}, 400),
        ({"principal": "viewer", "unknown": 1}, 422),
        ({"principal": "viewer", "rate": "often"}, 400),
    ],
)
def test_a_wrong_token_request_is_refused(
    client: Client, tokens: dict[str, str], body: dict[str, str], status: int
) -> None:
    assert client.post("/api/tokens", headers=bearer(tokens["admin"]), json=body).status_code == status


@pytest.mark.parametrize(
    "query", [{"subject": "\0"}, {"before": 2**63}, {"before": 0}, {"limit": 0}, {"limit": 10**6}, {"limit": "x"}]
)
def test_a_wrong_ledger_request_is_refused(client: Client, tokens: dict[str, str], query: dict[str, str | int]) -> None:
    assert client.get("/api/ledger", headers=bearer(tokens["viewer"]), params=query).status_code == 422


def test_a_route_tells_which_permission_it_declares(services: Services) -> None:
    declared = declared_permissions(application(services))
    assert declared["POST /api/tokens"] is Permission.ADMINISTER
    assert declared["GET /page"] is Permission.READ
    assert declared["POST /sign-in"] is None
    mine = {name: permission for name, permission in declared.items() if "/api/" in name and "openapi" not in name}
    assert len(mine) == 9 and None not in mine.values()
