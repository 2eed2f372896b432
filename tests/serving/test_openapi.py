"""The OpenAPI document of an endpoint: who may see it, which version it describes, and what its schemas take."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx
import jsonschema_rs
import pytest
from fuzzed import EVERY_KIND
from gateway_home import ENDPOINT, SIGNATURE, Home

from relevo.contract.model import Task
from relevo.identity.model import Role
from relevo.runtimes.model import Column, ColumnType, Signature
from relevo.serving.limits import Limits
from relevo.serving.openapi import document

PATH = f"/endpoints/{ENDPOINT}/openapi.json"
ROW = {"distance": 1.5, "carrier": None, "seats": 3, "is_early": True, "booked_at": "2013-04-01T10:00:00Z"}


def takes(signature: Signature, schema: str, body: Any) -> bool:
    """Whether the document of ``signature`` says that ``body`` fits."""
    made = document(ENDPOINT, signature, Limits())
    root = {"$ref": f"#/components/schemas/{schema}", "components": made["components"]}
    return bool(jsonschema_rs.validator_for(root, validate_formats=True).is_valid(body))


def records(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"dataframe_records": list(rows)}


def answering(client: httpx.Client) -> int | None:
    """The version of the route's first arm."""
    route = client.get(f"/endpoints/{ENDPOINT}").json()["route"]
    return None if route is None else route["arms"][0]["version"]


def test_who_may_predict_or_read_sees_the_document(shared: Home, client: httpx.Client) -> None:
    assert httpx.get(shared.url + PATH).status_code == 401
    for role, status in ((Role.VIEWER, 200), (Role.APPLICATION, 200), (Role.RUN, 403)):
        with shared.client(shared.token(f"a-{role}", role)) as asking:
            assert asking.get(PATH).status_code == status, role
    wrong = client.get("/endpoints/flight-dalay/openapi.json")
    assert (wrong.status_code, wrong.json()["error"]["hint"]) == (404, "Did you mean 'flight-delay'?")


def test_the_document_follows_the_version_that_answers(home: Home) -> None:
    home.endpoint("buffered")
    home.place(1)
    home.place(2, signature=replace(SIGNATURE, inputs=(*SIGNATURE.inputs, Column("seats", ColumnType.INTEGER))))
    home.place(3)
    home.start()
    with home.client() as client:
        unrouted = client.get(PATH)
        assert (unrouted.status_code, unrouted.json()["error"]["code"]) == (503, "unavailable")
        digests = []
        for version in (1, 2, 3):
            home.route((version, 100))
            home.eventually(lambda version=version: answering(client) == version)  # type: ignore[misc]
            made = client.get(PATH).json()
            digests.append(made["info"]["version"])
            assert ("seats" in made["components"]["schemas"]["Record"]["properties"]) is (version == 2)
    assert digests[0] == digests[2] != digests[1]  # a version with the same signature changes nothing for a client


def test_inputs_are_required_and_what_views_and_transforms_fill_is_not() -> None:
    assert takes(EVERY_KIND, "Predict", records({**ROW, "origin": "JFK"}))
    assert not takes(EVERY_KIND, "Predict", records({"origin": "JFK"}))
    assert not takes(EVERY_KIND, "Predict", records(ROW))  # neither the view's feature nor the key that finds it
    assert takes(EVERY_KIND, "Predict", records({**ROW, "delay": 4.0, "half": 1.0}))


def test_records_of_one_request_have_the_same_columns() -> None:
    full = {**ROW, "origin": "JFK"}
    assert takes(EVERY_KIND, "Predict", records(full, full))
    assert not takes(EVERY_KIND, "Predict", records(full, {**full, "half": 1.0}))


@pytest.mark.parametrize(
    ("column", "wrong"),
    [
        ("distance", None),  # the one that is not nullable
        ("distance", True),
        ("distance", "1.5"),
        ("carrier", 7),
        ("seats", 3.5),
        ("seats", 2**63),
        ("is_early", 1),
        ("booked_at", "2013-04-01T10:00:00"),
        ("gate", "A1"),
    ],
)
def test_wrong_values_do_not_fit(column: str, wrong: object) -> None:
    assert not takes(EVERY_KIND, "Predict", records({**ROW, "origin": "JFK", column: wrong}))


def test_each_form_stands_alone_with_an_optional_request_id() -> None:
    split = {"columns": ["distance", "carrier"], "data": [[1.5, "UA"]], "index": [0]}
    for form in (
        {"dataframe_split": split},
        {"instances": [[1.5, "UA"]]},
        {"inputs": {"distance": [1.5, [2.0]], "carrier": ["UA", "DL"]}},
        {"inputs": [[1.5, "UA"]]},
    ):
        assert takes(SIGNATURE, "Predict", form), form
        assert takes(SIGNATURE, "Predict", {**form, "request_id": "a-17"})
        assert not takes(SIGNATURE, "Predict", {**form, "request_id": ""})
        assert not takes(SIGNATURE, "Predict", {**form, **records({"distance": 1.0, "carrier": "UA"})})


def test_values_of_a_model_with_one_input_stand_alone() -> None:
    one = replace(SIGNATURE, inputs=SIGNATURE.inputs[:1])
    assert takes(one, "Predict", {"instances": [1.5, [2.5]]})
    assert not takes(SIGNATURE, "Predict", {"instances": [1.5]})


def test_fewer_rows_are_explained_than_predicted() -> None:
    many = {"instances": [[1.5, "UA"]] * 101}
    assert (takes(SIGNATURE, "Predict", many), takes(SIGNATURE, "Explain", many)) == (True, False)
    assert not takes(SIGNATURE, "Predict", {"instances": []})


def test_a_classifier_answers_one_probability_or_one_a_class() -> None:
    two = replace(SIGNATURE, task=Task.CLASSIFICATION, classes=("no", "yes"))
    three = replace(two, classes=("early", "late", "never"))
    for signature, right, wrong in ((two, 0.3, [0.7, 0.3]), (three, [0.2, 0.3, 0.5], 0.3)):
        answers = {"version": 1, "prediction_ids": ["a"]}
        assert takes(signature, "Prediction", {"predictions": [right], **answers})
        assert not takes(signature, "Prediction", {"predictions": [wrong], **answers})


def test_a_label_has_a_value_or_no_outcome() -> None:
    classes = replace(SIGNATURE, task=Task.CLASSIFICATION, classes=("no", "yes"))
    for label, fits in (
        ({"value": "yes"}, True),
        ({"value": 1}, True),
        ({"no_outcome": True}, True),
        ({"no_outcome": True, "value": 1}, False),
        ({}, False),
    ):
        body = {"labels": [{"prediction_id": "a", **label}]}
        assert takes(classes, "Labels", body) is fits, label
    assert not takes(SIGNATURE, "Labels", {"labels": [{"prediction_id": "a", "value": "yes"}]})
