import re

import pytest
from page_rules import check_page, signed_in
from plane import Browser, Plane

from relevo.identity.api import declared_permissions

MODEL_PAGES = [
    "/models/flight-delay",
    "/models/flight-delay/windows",
    "/models/flight-delay/windows/2013-06-10T00:00:00Z",
    "/models/flight-delay/versions",
    "/models/flight-delay/versions/1",
    "/models/flight-delay/versions/3",
    "/models/flight-delay/versions/7",
    "/models/flight-delay/releases",
    "/models/flight-delay/retraining",
    "/models/flight-delay/features",
    "/models/flight-delay/lineage",
    "/models/flight-delay/lineage?version=2",
    "/models/flight-delay/contract",
    "/models/flight-delay/contract?revision=1",
    "/datasets/flight-delay/flights",
    "/datasets/flight-delay/flights?version=2",
]
PAGES = ["/", "/datasets", "/approvals", "/alerts", "/alerts?model=flight-delay", "/ledger",
         "/ledger?subject=flight-delay/4", "/ledger?verify=1", "/logout"]  # fmt: skip


@pytest.mark.parametrize("path", [*PAGES, *MODEL_PAGES])
def test_a_page_renders_and_keeps_the_rules_of_every_page(season: Plane, path: str) -> None:
    check_page(signed_in(season).get(path))


@pytest.mark.parametrize("path", PAGES)
def test_a_new_installation_says_what_to_do_next(bare: Plane, path: str) -> None:
    answer = signed_in(bare).get(path)
    assert answer.status_code == 200
    if path == "/":
        assert "relevo init" in answer.text and "relevo apply" in answer.text
    if path == "/approvals":
        assert "Nothing waits for approval." in answer.text


def test_every_route_of_the_console_declares_a_permission(season: Plane) -> None:
    declared = declared_permissions(season[0])
    is_open = {name for name, permission in declared.items() if permission is None}
    pages = {name for name in is_open if not name.startswith(("GET /api", "POST /api", "DELETE /api"))}
    assert pages == {"GET /health", "GET /login", "POST /login", "MOUNT /static"}


def test_who_is_not_signed_in_is_led_to_the_form_and_back(season: Plane) -> None:
    browser = Browser(season[0])
    answer = browser.get("/models/flight-delay/windows?x=1")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/login?next=/models/flight-delay/windows%3Fx%3D1"
    form = browser.get(answer.headers["location"])
    assert 'name="next" value="/models/flight-delay/windows?x=1"' in form.text
    answer = browser.post("/login", data={"token": season[2]["vera"], "next": "/models/flight-delay/windows?x=1"})
    assert answer.headers["location"] == "/models/flight-delay/windows?x=1"
    assert {"httponly", "samesite=strict"} <= set(answer.headers["set-cookie"].lower().split("; "))
    assert browser.get("/models/flight-delay/windows").status_code == 200
    assert browser.get("/api/models").status_code == 200


@pytest.mark.parametrize("wanted", ["https://elsewhere", "//elsewhere", "/\\elsewhere", "/login", "\n/x"])
def test_signing_in_never_leads_to_another_site(season: Plane, wanted: str) -> None:
    answer = Browser(season[0]).post("/login", data={"token": season[2]["vera"], "next": wanted})
    assert answer.headers["location"] == "/"


def test_a_wrong_token_is_refused_in_words(season: Plane) -> None:
    browser = Browser(season[0])
    wrong = browser.post("/login", data={"token": "rlv_wrong"})
    assert wrong.status_code == 401 and "not known here" in wrong.text
    application = browser.post("/login", data={"token": season[2]["airline"]})
    assert application.status_code == 403 and "may not read the console" in application.text
    assert "set-cookie" not in wrong.headers and "set-cookie" not in application.headers


def test_programs_get_json_errors_and_people_get_pages(season: Plane) -> None:
    browser = Browser(season[0])
    assert browser.get("/api/models").json()["error"]["code"] == "not_authenticated"
    browser.sign_in(season[2]["vera"])
    missing = browser.get("/models/flight-dely")
    assert missing.status_code == 404
    assert "did you mean &#39;flight-delay&#39;" in missing.text
    assert browser.get("/nowhere").headers["content-type"].startswith("text/html")
    assert browser.get("/models/flight-delay/versions/99").status_code == 404
    assert browser.get("/models/flight-delay/versions/x").status_code == 400
    assert browser.get("/models/flight-delay/windows/2013-06-10T00:00:00").status_code == 400
    assert browser.get("/models/flight-delay/windows/2013-06-11T00:00:00Z").status_code == 404
    assert browser.get("/api/models/flight-dely").json()["error"]["code"] == "not_found"


def test_the_fleet_says_what_each_model_is_and_waits_for(season: Plane) -> None:
    text = signed_in(season, "vera").get("/").text
    for part in ("flight-delay", "ops-analytics", "critical", "300", "roc_auc 0.7", "3 open", "approval of flight-"):
        assert part in text


def test_the_overview_gives_a_command_that_carries_what_a_caller_must_send(season: Plane) -> None:
    text = signed_in(season).get("/models/flight-delay").text
    assert "http://127.0.0.1:8421/endpoints/flight-delay/invocations" in text
    assert "Authorization: Bearer $RELEVO_TOKEN" in text
    assert "&#34;hour&#34;, &#34;carrier&#34;, &#34;origin&#34;, &#34;distance&#34;, &#34;tailnum&#34;" in text
    assert "N14228" in text and "wind_speed" not in text.split("dataframe_split")[1].split("</pre>")[0]


def test_the_evidence_says_why_a_version_was_rejected(season: Plane) -> None:
    text = signed_in(season).get("/models/flight-delay/versions/3").text
    assert re.search(r"Failed</span> log_loss needs &lt;= 0\.\d+, got 0\.\d+", text)
    assert "Champion v2" in text and "worse" in text


def test_text_from_people_and_models_is_never_markup(season: Plane) -> None:
    app, services, _ = season
    with services.state.transaction() as tx:
        actor = services.identity.authenticate(season[2]["admin"])
        services.ledger.append(tx, actor=actor, action="tried", subject="<script>x</script>", reason="<img src=x>")
    text = signed_in(season).get("/ledger?subject=<script>x</script>").text
    assert "<script>x" not in text and "<img src=x" not in text and "&lt;img src=x&gt;" in text
    assert app.state.services is services


def test_static_files_are_open_and_named_by_their_content(season: Plane) -> None:
    page = signed_in(season).get("/").text
    addresses = re.findall(r'(?:href|src)="(/static/[^"]+)"', page)
    assert {address.split("?")[0] for address in addresses} == {
        "/static/relevo.css", "/static/relevo.js", "/static/relevo.svg",
    }  # fmt: skip
    for address in addresses:
        answer = Browser(season[0]).get(address)
        assert answer.status_code == 200
        assert answer.headers["x-content-type-options"] == "nosniff"
