"""Data that a team's code should not have given: the run fails in its words, and what was live stays live."""

from __future__ import annotations

from datetime import timedelta

import pytest
from running import Relevo, eventually
from team import Project

RETURNED = '    return rows.filter(pl.col("delivered_at") <= until)\n'
FAULTS = {
    "raises": ('    raise RuntimeError("the warehouse is closed")\n', "RuntimeError: the warehouse is closed"),
    "no_rows": ("    return rows.clear()\n", "no rows"),
    "repeats": ("    return pl.concat([rows, rows.head(2)])\n", " rows repeat another row's asked_at and parcel_id"),
    "naive": (
        '    return rows.with_columns(pl.col("asked_at").dt.replace_time_zone(None))\n',
        "column 'asked_at' holds naive times",
    ),
    "unchecked": ('    return rows.with_columns(depot=pl.lit("moon"))\n', "depot"),
}


@pytest.fixture(params=FAULTS)
def fault(request: pytest.FixtureRequest, contested: Project):
    """A fault of the loader, there for one test, and what Relevo should say of it."""
    code, message = FAULTS[request.param]
    path = contested.folder / "parcels" / "sources.py"
    good = path.read_text()
    contested.change("parcels/sources.py", RETURNED, code)
    yield message
    path.write_text(good)


def check_still_live(relevo: Relevo, project: Project, version: int) -> None:
    """The version answers, on features that go on with event time."""
    assert relevo.shares(project.model) == [(version, 100)]
    now = relevo.event_at(project.model) + timedelta(hours=1)
    relevo.advance(project.model, now)
    body = {"dataframe_records": [{"depot": "port", "weight": 2.0, "asked_at": now.isoformat()}]}
    answer = relevo.application.gateway_post(f"/endpoints/{project.model}/invocations", body)
    assert answer["version"] == version


def test_a_bad_source_fails_its_run_and_leaves_what_is_live(relevo: Relevo, contested: Project, fault: str) -> None:
    ((version, _),) = relevo.shares(contested.model)
    release = relevo.apply(contested.folder)
    failed = relevo.await_state(release, "failed")
    assert fault in failed["outcome"]
    assert "parcels" in failed["outcome"] or "sources.py" in failed["outcome"]
    eventually(lambda: any(fault in alert["message"] for alert in relevo.alerts(contested.model)), "the alert")
    assert any(fault in entry["reason"] for entry in relevo.ledger(contested.model, action="release failed"))
    check_still_live(relevo, contested, version)


def test_features_of_the_live_version_go_on_when_a_new_revision_cannot_load_them(
    relevo: Relevo, contested: Project
) -> None:
    ((version, _),) = relevo.shares(contested.model)
    contested.change(
        "parcels/sources.py", "    hours = np.arange", '    raise RuntimeError("no scans")\n    hours = np.arange'
    )
    release = relevo.apply(contested.folder)
    assert "RuntimeError: no scans" in relevo.await_state(release, "failed")["outcome"]
    check_still_live(relevo, contested, version)
    contested.change("parcels/sources.py", '    raise RuntimeError("no scans")\n', "")
