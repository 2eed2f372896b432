"""Reasons over HTTP: contributions, who may ask, and what is refused."""

from __future__ import annotations

import httpx
import pytest
from gateway_home import ENDPOINT, NOW, Home, body
from test_gateway import error, metric

from relevo.identity.model import Role

EXPLAIN = f"/endpoints/{ENDPOINT}/explain"


def test_each_prediction_comes_with_what_each_input_adds(home: Home) -> None:
    home.endpoint()
    home.place(1, weight=0.25)
    home.route((1, 100))
    home.start()
    home.serving.await_loaded(ENDPOINT, 1, 20)
    with home.client() as client:
        answer = client.post(EXPLAIN, json=body(100.0, 4.0))
        assert answer.status_code == 200
        assert answer.json() == {
            "explanations": [
                {"prediction": 26.0, "base": 1.0, "contributions": {"distance": 25.0, "carrier": 0.0}},
                {"prediction": 2.0, "base": 1.0, "contributions": {"distance": 1.0, "carrier": 0.0}},
            ],
            "link": "identity",
            "version": 1,
        }
        assert metric(client, "relevo_explained_requests_total", version="1") == 1
    home.stop_workers()
    assert [one for one in home.records() if one.status == "ok"] == []  # an explanation is no prediction


def test_a_version_may_be_addressed(shared: Home, client: httpx.Client) -> None:
    answer = client.post(EXPLAIN, json=body(1.0), headers={"x-relevo-version": "2"})
    assert (answer.json()["version"], answer.json()["explanations"][0]["prediction"]) == (2, 2.0)
    application = shared.token("explained", Role.APPLICATION)
    with shared.client(application) as asking:
        assert asking.post(EXPLAIN, json=body(1.0)).status_code == 200
        refused = asking.post(EXPLAIN, json=body(1.0), headers={"x-relevo-version": "2"})
        assert refused.status_code == 403


@pytest.mark.parametrize(
    ("request_body", "status", "told"),
    [
        (
            {"dataframe_records": [{"distance": "far", "carrier": None}]},
            400,
            "Column 'distance', row 0: expected a number",
        ),
        (body(*[1.0] * 101), 413, "At most 100 rows are explained at once, got 101."),
        (
            {
                "dataframe_records": [
                    {"distance": 1.0, "carrier": None, "scheduled_at": NOW.replace(year=2999).isoformat()}
                ]
            },
            400,
            "at most",
        ),
    ],
)
def test_what_cannot_be_explained_is_refused(
    client: httpx.Client, request_body: object, status: int, told: str
) -> None:
    answer = client.post(EXPLAIN, json=request_body)
    assert answer.status_code == status
    assert told in error(answer)["message"]
