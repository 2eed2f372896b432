"""What the real gateway served is recomputed from the sources; skews, dead loaders and stale rows are found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from running import Relevo, eventually
from team import BEGINS, Project

HOUR = timedelta(hours=1)
SCANS = """    frame = pl.concat(each).filter(pl.col("at") <= until)
    if witness.is_there("closed"):
        raise RuntimeError("the scanner is off")
    if witness.is_there("corrected"):  # what was counted before is counted otherwise now
        frame = frame.with_columns(waiting=pl.col("waiting") + 1)
    if witness.is_there("silent"):
        frame = frame.filter(pl.col("at") <= datetime(2024, 2, 12, 12, tzinfo=UTC))
    return frame
"""


@pytest.fixture(scope="module")
def proved(relevo: Relevo, make_project: Callable[[str], Project]) -> Project:
    """A live model whose loader a test may spoil, with a limit on the age of its queue."""
    project = make_project("proved")
    project.change("parcels/sources.py", '    return pl.concat(each).filter(pl.col("at") <= until)\n', SCANS)
    project.change(
        "parcels/features.py", '    source="scans",\n', '    source="scans",\n    fresh_within="3h",\n    ttl="9h",\n'
    )
    relevo.replay(project.model, BEGINS)
    relevo.bring_live(relevo.apply(project.folder))
    return project


@pytest.fixture
def spoil(proved: Project) -> Iterator[Callable[[str], None]]:
    """Spoils the loader in one way until the test is over."""
    names: list[str] = []

    def touch(name: str) -> None:
        names.append(name)
        proved.let_go(name)

    yield touch
    for name in names:
        (proved.witness / name).unlink()


def step(relevo: Relevo, project: Project, hours: float = 1) -> datetime:
    """Let event time go on."""
    now = relevo.event_at(project.model) + hours * HOUR
    relevo.advance(project.model, now)
    return now


def ask(relevo: Relevo, project: Project, now: datetime, **more: Any) -> None:
    """Ask about 30 parcels of the last hour."""
    depots = ["north", "port", "south"]
    rows = [
        {"depot": depots[i % 3], "weight": 1.0 + i, "asked_at": (now - i * HOUR / 30).isoformat(), **more}
        for i in range(30)
    ]
    relevo.application.gateway_post(f"/endpoints/{project.model}/invocations", {"dataframe_records": rows})


def prove(relevo: Relevo, project: Project, *arguments: str, check: int) -> dict[str, Any]:
    said = relevo.command("features", "parity", project.model, "--json", *arguments, check=check)
    found: dict[str, Any] = json.loads(said)
    return found


def open_alert(relevo: Relevo, project: Project, kind: str) -> str | None:
    """The message of the open alert of that kind."""
    return next((alert["message"] for alert in relevo.alerts(project.model) if alert["kind"] == kind), None)


def test_served_features_are_those_that_training_sees_until_the_source_rewrites_history(
    relevo: Relevo, proved: Project, spoil: Callable[[str], None]
) -> None:
    ask(relevo, proved, now := step(relevo, proved))
    ask(relevo, proved, now, waiting=3.5)
    found = prove(relevo, proved, check=0)
    assert (found["rows"], found["sampled"], found["unlogged"], found["versions"]) == (60, 60, 0, [1])
    assert (found["compared"], found["exact"], found["different"], found["sent"]) == (90, 90, 0, 30)
    assert found["lag"]["max_seconds"] == 0  # a replay fills the store before anybody asks
    said = relevo.command("features", "parity", proved.model)
    assert "90 looked up: 90 equal" in said
    assert "30 values by the caller" in said
    spoil("corrected")
    found = prove(relevo, proved, check=1)
    assert found["different"] == 90
    assert found["causes"] == {"source": 90}
    waiting = next(one for one in found["features"] if one["feature"] == "waiting")
    for example in waiting["examples"]:
        assert example["expected"] == pytest.approx(example["logged"] + 1)
        assert example["online"] == example["logged"]
    recorded = relevo.admin.get(f"/api/models/{proved.model}/features/parity")["proofs"]
    assert [one["different"] for one in recorded[:2]] == [90, 0]


def test_views_are_listed_with_their_users_and_the_training_set_is_made_again(relevo: Relevo, proved: Project) -> None:
    (line,) = relevo.admin.get(f"/api/models/{proved.model}/features")
    assert (line["view"], line["source"], line["versions"]) == ("queue", "scans", [1])
    assert line["fresh_within_seconds"] == 3 * 3600
    assert line["is_fresh"] is True
    assert line["filled_through"] == relevo.event_at(proved.model).isoformat().replace("+00:00", "Z")
    uses = relevo.admin.get(f"/api/features/queue:{line['definition']}/impact")
    own = next(use for use in uses if use["model"] == proved.model)
    assert (own["revisions"], own["percent"], own["is_declared"]) == ([1], 100, True)
    assert own["versions"] == [{"version": 1, "stage": "production", "percent": 100}]
    assert proved.model in relevo.command("features", "list")
    assert "did you mean 'queue'" in relevo.command("features", "impact", "queues", check=None).lower()
    pins = relevo.admin.get(f"/api/models/{proved.model}/versions/1/training-set")
    assert pins["views"] == {"queue": line["definition"]}
    assert pins["datasets"].keys() == {"parcels", "scans"}
    assert "comes out the same" in relevo.command("training-set", "verify", proved.model, "1")


def test_a_loader_that_fails_is_an_alert_and_not_only_a_line_in_a_log(
    relevo: Relevo, proved: Project, spoil: Callable[[str], None]
) -> None:
    spoil("closed")
    at = relevo.event_at(proved.model) + HOUR
    with pytest.raises(Exception, match="the scanner is off"):
        relevo.admin.post(f"/api/models/{proved.model}/replay/advance", {"at": at.isoformat()})
    eventually(lambda: relevo.event_at(proved.model) == at, "the gateway to follow")
    assert "the scanner is off" in (open_alert(relevo, proved, "features") or "")
    (proved.witness / "closed").rename(proved.witness / "opened")
    for _ in range(2):
        step(relevo, proved, 0.1)
        assert open_alert(relevo, proved, "features")
    step(relevo, proved, 0.1)
    assert open_alert(relevo, proved, "features") is None
    (proved.witness / "opened").rename(proved.witness / "closed")


def test_rows_that_stop_coming_are_an_alert_until_new_ones_are_known(
    relevo: Relevo, proved: Project, spoil: Callable[[str], None]
) -> None:
    assert open_alert(relevo, proved, "freshness") is None
    spoil("silent")
    now = relevo.event_at(proved.model)
    relevo.advance(proved.model, max(now, BEGINS + 17 * HOUR))
    relevo.settle(proved.model)
    assert open_alert(relevo, proved, "freshness") is None  # one look may be a coincidence
    relevo.settle(proved.model)
    message = open_alert(relevo, proved, "freshness")
    assert message == "Stale features: queue, newest row of 2024-02-12 12:00, allowed age 3h."
    assert eventually(lambda: relevo.admin.get(f"/api/models/{proved.model}")["health"] == "warning", "a warning")
    (proved.witness / "silent").rename(proved.witness / "loud")
    step(relevo, proved, 2)
    relevo.settle(proved.model)
    assert open_alert(relevo, proved, "freshness")
    relevo.settle(proved.model)
    assert open_alert(relevo, proved, "freshness") is None
    (proved.witness / "loud").rename(proved.witness / "silent")
