"""What people do in the console. Each test brings a home of its own, since it changes it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from page_rules import signed_in
from plane import Browser, Plane, installation
from season import MODEL, plant

from relevo.registry.model import Stage

WAITING = "deliver-flight-delay-20130923T0000"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """One season for the tests of this module, which go through its end in order."""
    with installation(tmp_path_factory.mktemp("forms"), plant) as made:
        yield made


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/logout", {}),
        (f"/approvals/{WAITING}", {"decision": "approve", "reason": "x"}),
        ("/alerts/1/resolve", {"reason": "x"}),
        (f"/models/{MODEL}/train", {"reason": "x"}),
        (f"/models/{MODEL}/rollback", {"reason": "x"}),
        (f"/models/{MODEL}/releases/{WAITING}/cancel", {"reason": "x"}),
    ],
)
def test_a_form_needs_its_csrf_token_and_a_session(plane: Plane, path: str, fields: dict[str, str]) -> None:
    browser = signed_in(plane, "admin")
    assert browser.post(path, data=fields).status_code == 403
    assert browser.post(path, data={**fields, "csrf_token": "0" * 64}).status_code == 403
    stranger = Browser(plane[0]).post(path, data=fields)
    assert stranger.status_code == 303 and stranger.headers["location"] == "/login"
    assert signed_in(plane, "admin").get("/approvals").status_code == 200  # nobody was signed out


def test_who_may_not_approve_reads_why_and_gets_no_form(plane: Plane) -> None:
    viewer = signed_in(plane, "vera").get("/approvals").text
    assert "Your role, viewer, may not approve" in viewer and 'value="approve"' not in viewer
    engineer = signed_in(plane, "maya").get(f"/models/{MODEL}/versions/7").text
    assert "Your role, engineer, may not approve" in engineer
    browser = signed_in(plane, "vera")
    word = {"decision": "approve", "reason": "x", "csrf_token": browser.csrf()}
    refused = browser.post(f"/approvals/{WAITING}", data=word)
    assert refused.status_code == 403 and "lacks the permission approve" in refused.text


def test_a_viewer_sees_no_form_of_operators(plane: Plane) -> None:
    viewer = signed_in(plane, "vera").get(f"/models/{MODEL}/releases").text
    assert "/train" not in viewer and "/rollback" not in viewer and "/cancel" not in viewer
    operator = signed_in(plane, "maya").get(f"/models/{MODEL}/releases").text
    assert "/train" in operator and "Roll back to v4" in operator and "/cancel" in operator


def test_an_alert_is_resolved_with_a_reason(plane: Plane) -> None:
    _, services, _ = plane
    browser, alert = signed_in(plane, "maya"), services.monitoring.alerts(open_only=True)[0]
    address = f"/alerts/{alert.id}/resolve"
    assert browser.post(address, data={"reason": "", "csrf_token": browser.csrf()}).status_code == 400
    answer = browser.post(address, data={"reason": "sensor replaced", "csrf_token": browser.csrf()})
    assert answer.headers["location"] == "/alerts?notice=resolved"
    assert "The alert is resolved." in browser.get("/alerts?notice=resolved").text
    assert alert.id not in {one.id for one in services.monitoring.alerts(open_only=True)}
    assert services.ledger.entries(limit=1)[0].reason == "sensor replaced"
    again = browser.post(address, data={"reason": "again", "csrf_token": browser.csrf()})
    assert again.status_code == 409 and "was resolved" in again.text


def test_rolling_back_puts_the_previous_champion_back(plane: Plane) -> None:
    _, services, _ = plane
    browser = signed_in(plane, "maya")
    answer = browser.post(f"/models/{MODEL}/rollback", data={"reason": "slow", "csrf_token": browser.csrf()})
    assert answer.status_code == 303, answer.text
    route = services.serving.current_route(MODEL)
    assert route is not None and route.champion == 4
    assert services.registry.version(MODEL, 4).stage is Stage.PRODUCTION
    assert "rolled back" in browser.get(f"/models/{MODEL}/releases").text


def test_signing_out_ends_the_session(plane: Plane) -> None:
    browser = signed_in(plane, "vera")
    before = browser._cookies
    answer = browser.post("/logout", data={"csrf_token": browser.csrf()})
    assert answer.headers["location"] == "/login?notice=signed-out"
    browser._cookies = before
    assert browser.get("/").headers["location"] == "/login"


def test_another_site_cannot_sign_a_browser_in(plane: Plane, tmp_path: Path) -> None:
    import asyncio

    import httpx

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(plane[0])
        async with httpx.AsyncClient(transport=transport, base_url="http://relevo") as http:
            headers = {"sec-fetch-site": "cross-site"}
            return await http.post("/login", data={"token": plane[2]["vera"]}, headers=headers)

    answer = asyncio.run(send())
    assert answer.status_code == 403 and "set-cookie" not in answer.headers
