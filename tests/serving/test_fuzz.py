"""What the OpenAPI document promises, asked of a real gateway by schemathesis: right requests, and wrong ones."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import requests
import schemathesis
from fuzzed import gateway
from gateway_home import ENDPOINT, Home
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.config import ChecksConfig, GenerationConfig, ProjectConfig, ProjectsConfig, SchemathesisConfig
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

BASE = f"/endpoints/{ENDPOINT}"
MODEL = f"/v2/models/{ENDPOINT}"
ASKED = [
    *(("get", path) for path in (BASE, f"{BASE}/ping", f"{BASE}/version", f"{BASE}/openapi.json")),
    *(("get", path) for path in (MODEL, f"{MODEL}/ready", f"{MODEL}/config")),
    *(("post", path) for path in (f"{BASE}/invocations", f"{BASE}/explain", f"{BASE}/labels", f"{MODEL}/infer")),
]
EXAMPLES = 200
#: The event clock stands at the time now, and nothing is asked or known ahead of it.
PAST = st.datetimes(datetime(1990, 1, 1), datetime(2020, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
schemathesis.openapi.format("date-time", PAST.map(lambda at: at.isoformat().replace("+00:00", "Z")))


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    yield from gateway(tmp_path_factory.mktemp("fuzz") / "home")


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


@pytest.fixture(scope="module")
def api(fuzzed: Home) -> Any:
    with fuzzed.client() as client:
        document = client.get(f"{BASE}/openapi.json").json()
    generation = GenerationConfig(deterministic=True, with_security_parameters=False)
    checks = ChecksConfig.from_dict({"negative_data_rejection": {"expected-statuses": ["400", "404", "405", "413"]}})
    project = ProjectConfig(base_url=fuzzed.url, generation=generation, checks=checks)
    config = SchemathesisConfig(seed=1, projects=ProjectsConfig(default=project))
    return schemathesis.openapi.from_dict(document, config=config)


def cases(operation: Any, mode: GenerationMode) -> list[Any]:
    """Every boundary of the schema, then what Hypothesis draws from it; the same at each run."""
    generation = operation.schema.config.generation
    drawn = list(operation.schema.iter_coverage_cases(operation, generation_modes=[mode], generation_config=generation))

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode))
    def draw(case: Any) -> None:
        drawn.append(case)

    if mode is GenerationMode.POSITIVE or operation.body:  # what takes nothing cannot be asked wrongly
        draw()
    return drawn


def complete(body: Any, prediction_id: str) -> None:
    """What JSON Schema has no words for: columns of one length, and an id that was issued."""
    columns = body.get("inputs")
    if isinstance(columns, dict):
        rows = min(map(len, columns.values()))
        columns.update({name: values[:rows] for name, values in columns.items()})
    for label in body.get("labels", ()):
        label["prediction_id"] = prediction_id


def test_the_document_is_openapi_and_each_of_its_operations_is_asked(api: Any) -> None:
    api.validate()
    assert {(method, path) for path in api for method in api[path]} == set(ASKED)


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize(("method", "path"), ASKED)
def test_the_gateway_answers_as_its_document_says(
    api: Any, fuzzed: Home, session: requests.Session, method: str, path: str, mode: GenerationMode
) -> None:
    operation = api[path][method]
    headers = {"authorization": f"Bearer {fuzzed.admin}"}
    with fuzzed.client() as client:
        row = {"distance": 1.0, "carrier": "UA", "seats": 1, "is_early": True, "booked_at": None, "origin": "JFK"}
        answer = client.post(f"{BASE}/invocations", json={"dataframe_records": [row]})
        (prediction_id,) = answer.json()["prediction_ids"]
    excluded = [ignored_auth]  # it takes the token of the call for one of its own
    if path == f"{MODEL}/infer":
        excluded.append(positive_data_acceptance)  # a tensor's data depend on its shape, which no schema can say
    for case in cases(operation, mode):
        if mode is GenerationMode.POSITIVE:
            case.headers.pop("X-Relevo-Version", None)  # no schema knows which versions are placed
            if isinstance(case.body, dict):
                complete(case.body, prediction_id)
        answer = case.call_and_validate(session=session, headers=headers, excluded_checks=excluded)
        if mode is GenerationMode.POSITIVE and path != f"{MODEL}/infer":
            assert answer.status_code in (200, 409), answer.text
