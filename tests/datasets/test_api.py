"""The routes of datasets over a home with real tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from explored import explored
from history import SNAPSHOT
from plane import Browser, Plane, installation

from relevo.datasets.api import SANDBOX
from relevo.identity.api import declared_permissions


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    with installation(tmp_path_factory.mktemp("data"), explored) as made:
        yield made


@pytest.fixture(scope="module")
def browser(plane: Plane) -> Browser:
    found = Browser(plane[0])
    found.sign_in(plane[2]["vera"])
    return found


def get(browser: Browser, path: str, status: int = 200) -> Any:
    answer = browser.get(f"/api/datasets{path}")
    assert answer.status_code == status, answer.text
    return answer.json()


def test_every_dataset_is_listed_with_its_newest_version_and_who_loaded_it(browser: Browser) -> None:
    found = get(browser, "")["datasets"]
    assert [(one["model"], one["source"], one["version"], one["versions"], one["rows"]) for one in found] == [
        ("flight-delay", "flights", 3, 4, 1600),
        ("flight-delay", "weather", 1, 2, 15),
        ("turnaround", "weather", 0, 1, 3),
    ]
    assert found[0]["provenance"] == {"revision": 1, "applied_by": "maya", "git_commit": "8f3c2a91d04b77e1"}
    assert found[0]["known_through"] == "2026-02-10T00:00:00Z"
    assert [one["source"] for one in get(browser, "?model=turnaround")["datasets"]] == ["weather"]
    assert "did you mean 'turnaround'" in get(browser, "?model=turnaroud", 404)["error"]["message"]


def test_a_version_comes_with_checks_changes_provenance_and_what_was_trained_on_it(browser: Browser) -> None:
    view = get(browser, "/flight-delay/flights?version=2")
    version = view["version"]
    assert (version["version"], view["before"], view["newest"], version["snapshot"]) == (2, 1, 3, SNAPSHOT)
    assert view["names"] == ["scheduled_at", "flight_id"]
    assert version["changes"] == ["column distance is new (Float64)"]
    assert (version["checks"][0]["rule"], version["checks"][0]["failed"], version["quarantined"]) == ("delay|max", 7, 7)
    assert view["references"] == [
        {
            "model_version": 2,
            "stage": "production",
            "run_id": "02c4d1e8f7a94b1e",
            "workflow_id": "deliver-2",
        }
    ]
    newest = get(browser, "/flight-delay/flights")
    assert (newest["version"]["version"], newest["references"]) == (3, [])


def test_history_is_every_version_the_newest_first(browser: Browser) -> None:
    found = get(browser, "/flight-delay/flights/history")["versions"]
    assert [(one["version"], one["rows"]) for one in found] == [(3, 1600), (2, 800), (1, 600), (0, 400)]


def test_two_versions_are_compared_and_by_default_the_newest_two(browser: Browser) -> None:
    answer = get(browser, "/flight-delay/flights/diff?before=1&after=2")
    found = answer["comparison"]
    assert (answer["before"], answer["after"]) == (1, 2)
    assert (found["added"], found["removed"], found["changed"]) == (200, 0, 6)
    assert found["named_by"] == ["scheduled_at", "flight_id"]
    newest = get(browser, "/flight-delay/flights/diff")
    assert (newest["before"], newest["after"]) == (2, 3)
    alone = get(browser, "/turnaround/weather/diff", 404)["error"]
    assert alone["message"] == "turnaround/weather has one version only, 0: there is none to compare it with."
    assert alone["hint"].startswith("A load that finds other rows makes the next: relevo train turnaround")
    first = get(browser, "/flight-delay/flights/diff?after=0", 404)["error"]
    assert first["message"] == "flight-delay/flights has no version before 0."
    assert first["hint"].endswith("versions, 0 to 3: relevo datasets diff flight-delay/flights BEFORE AFTER")


def test_a_profile_is_a_page_that_runs_in_a_sandbox_and_reaches_nothing(browser: Browser) -> None:
    answer = browser.get("/api/datasets/turnaround/weather/profile")
    assert answer.status_code == 200 and "All 3 rows." in answer.text
    policy = answer.headers["content-security-policy"]
    assert policy == SANDBOX["Content-Security-Policy"]
    assert policy.startswith("sandbox allow-scripts; default-src 'none';") and "allow-same-origin" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/flight-delay/flihgts", 404, "Did you mean flight-delay/flights?"),
        ("/flight-dely/flights/history", 404, "Did you mean flight-delay/flights?"),
        ("/flight-delay/flights?version=9", 404, "known versions: 3, 2, 1, 0"),
        ("/flight-delay/flights/profile?version=9", 404, "known versions: 3, 2, 1, 0"),
        ("/flight-delay/flights/diff?before=0&after=9", 404, "known versions: 3, 2, 1, 0"),
        ("/flight-delay/flights?version=-1", 400, "version"),
    ],
)
def test_a_mistake_is_answered_with_what_there_is(browser: Browser, path: str, status: int, said: str) -> None:
    error = get(browser, path, status)["error"]
    assert said in f"{error['message']} {error['hint']}"


def test_who_may_not_read_gets_nothing(plane: Plane) -> None:
    declared = declared_permissions(plane[0])
    routes = [name for name in declared if "datasets" in name and not name.startswith("MOUNT")]
    assert len(routes) >= 10
    assert {declared[name].value for name in routes if declared[name] is not None} == {"read"}
    assert None not in {declared[name] for name in routes}
    assert Browser(plane[0]).get("/api/datasets").status_code == 401
