"""Requests of a load test: answered as any other, neither logged nor counted, by a token that is for nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from gateway_home import ENDPOINT, Home, body

from relevo.identity.model import RELEVO, Role
from relevo.serving.model import Counters


@pytest.fixture
def tester(shared: Home) -> Iterator[httpx.Client]:
    with shared.state.transaction() as tx:
        token = shared.identity.create_token(tx, RELEVO.name, Role.LOAD_TEST, note="load test")
    with shared.client(token) as client:
        yield client


def ask(client: httpx.Client, version: int, **payload: object) -> httpx.Response:
    return client.post(
        f"/endpoints/{ENDPOINT}/invocations", json=payload or body(100.0), headers={"X-Relevo-Version": str(version)}
    )


def test_a_load_test_gets_the_versions_answer_without_ids_and_leaves_no_trace(
    shared: Home, client: httpx.Client, tester: httpx.Client
) -> None:
    assert shared.predict(client).status_code == 200
    shared.eventually(lambda: (shared.count(1).requests, len(shared.records())) == (1, 1))
    answers = [ask(tester, 2) for _ in range(20)]
    assert {answer.status_code for answer in answers} == {200}
    assert answers[0].json() == {"predictions": [2.0], "version": 2, "prediction_ids": []}
    refused = ask(tester, 2, dataframe_records=[{"distance": "far", "carrier": "UA"}])
    assert (refused.status_code, refused.json()["error"]["field"]) == (400, "distance")
    assert shared.predict(client).status_code == 200  # what comes after it is counted and logged: it passed by then
    shared.eventually(lambda: shared.count(1).requests == 2)
    shared.eventually(lambda: len(shared.records()) == 2)
    assert shared.count(2) == Counters()


def test_the_token_of_a_load_test_asks_one_version_and_nothing_else(tester: httpx.Client) -> None:
    unnamed = tester.post(f"/endpoints/{ENDPOINT}/invocations", json=body(100.0))
    assert (unnamed.status_code, unnamed.json()["error"]["message"]) == (403, "A load test's token asks one version.")
    assert tester.post(f"/endpoints/{ENDPOINT}/labels", json={"labels": []}).status_code == 403
    assert tester.get("/metrics").status_code == 403
    inferred = tester.post(f"/v2/models/{ENDPOINT}/versions/1/infer", json={"inputs": []})
    assert (inferred.status_code, inferred.json()["error"]) == (403, "A load test's token asks under /endpoints alone.")


def test_a_version_that_cannot_answer_a_load_test_says_why(shared: Home, tester: httpx.Client) -> None:
    shared.place(9, weight=1e308)
    shared.serving.await_loaded(ENDPOINT, 9, 20)
    failed = tester.post(f"/endpoints/{ENDPOINT}/invocations", json=body(1e308), headers={"X-Relevo-Version": "9"})
    assert failed.status_code == 500
    assert "Version flight-delay/9 could not answer" in failed.json()["error"]["message"]
    assert shared.count(9) == Counters()
