"""A champion comes back: by itself when a canary breaks its contract, and by hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from running import Load, Relevo, eventually
from team import Project, apply_next, finish_canary

MOODY = '''
from parcels import witness
from parcels.train import train as fit


class Moody:
    """Answers as the model does, until a test wants it to fail: no compiler knows it, so it runs in a process."""

    def __init__(self, model):
        self.model, self.classes_ = model, model.classes_

    def predict_proba(self, rows):
        if witness.is_there("out of mood"):
            raise RuntimeError("out of mood today")
        return self.model.predict_proba(rows)


def train(training, params):
    return Moody(fit(training, params))
'''


def reach_canary(relevo: Relevo, project: Project) -> str:
    """Bring a challenger before the callers; gives its release."""
    release = apply_next(relevo, project)
    relevo.await_state(release, "waiting_for_approval")
    relevo.approve(release)
    return release


def check_given_back(relevo: Relevo, project: Project, release: str, champion: int, reason: str) -> None:
    """The route, the alert, the ledger and the stages after a canary that broke its contract."""
    ended = relevo.await_state(release, "rolled_back")
    assert reason in ended["outcome"]
    assert relevo.shares(project.model) == [(champion, 100)]
    eventually(lambda: any(reason in one["message"] for one in relevo.alerts(project.model)), "the alert")
    (entry,) = [one for one in relevo.ledger(project.model, action="release rolled back") if reason in one["reason"]]
    assert entry["actor"] == "relevo"
    assert entry["facts"]["release"] == release
    stages = {one["number"]: one["stage"] for one in relevo.admin.get(f"/api/models/{project.model}/versions")}
    assert stages[champion] == "production"
    assert stages[ended["version"]] != "production"


@pytest.fixture(autouse=True)
def _as_it_was(contested: Project) -> Iterator[None]:
    """The contract without what a test changed in it."""
    path = contested.folder / "relevo.yaml"
    text = path.read_text()
    yield
    path.write_text(text)


@pytest.fixture
def champion(relevo: Relevo, contested: Project) -> int:
    """The version that is live."""
    ((version, _),) = relevo.shares(contested.model)
    return version


def test_a_canary_that_raises_gives_its_traffic_back_and_costs_no_request(
    relevo: Relevo, contested: Project, champion: int
) -> None:
    (contested.folder / "parcels" / "moody.py").write_text(MOODY)
    contested.change("relevo.yaml", "parcels.train:train", "parcels.moody:train")
    with Load(relevo, contested.model).running() as load:
        release = reach_canary(relevo, contested)
        version = relevo.await_state(release, "canary")["version"]
        eventually(lambda: load.versions.get(version, 0) > 3, "the challenger to be asked")
        contested.let_go("out of mood")
        check_given_back(relevo, contested, release, champion, f"version {version} failed")
        load.await_more(20)
    assert load.failures == []
    counted = relevo.admin.get(f"/api/models/{contested.model}/log")
    assert counted["rows_failed"] > 0


def test_a_canary_slower_than_its_contract_allows_gives_its_traffic_back(
    relevo: Relevo, contested: Project, champion: int
) -> None:
    unmet = "slo: {p99_ms: 0.001, error_rate: 0.02}\n  load_test: {requests: 0}"  # it would not get that far
    contested.change("relevo.yaml", "slo: {p99_ms: 5000, error_rate: 0.02}", unmet)
    with Load(relevo, contested.model).running() as load:
        release = reach_canary(relevo, contested)
        check_given_back(relevo, contested, release, champion, "answers with a p99 of")
        load.await_more(20)
    assert load.failures == []


def test_rollback_puts_the_previous_champion_back_in_one_go(relevo: Relevo, contested: Project, champion: int) -> None:
    with Load(relevo, contested.model).running() as load:
        release = reach_canary(relevo, contested)
        relevo.await_state(release, "canary")
        version = finish_canary(relevo, contested, release)
        # Those of the canaries that were given up before close themselves.
        eventually(lambda: not [one for one in relevo.alerts(contested.model) if one["kind"] == "release"], "no alert")
        assert f"{contested.model}/{champion}" in relevo.command("rollback", contested.model, "--reason", "we feel it")
        assert relevo.shares(contested.model) == [(champion, 100)]
        before = load.versions.get(champion, 0)
        eventually(lambda: load.versions.get(champion, 0) > before + 20, "the old champion to be asked again")
    assert load.failures == []
    assert relevo.release(release)["release"]["state"] == "rolled_back"
    stages = {one["number"]: one["stage"] for one in relevo.admin.get(f"/api/models/{contested.model}/versions")}
    assert (stages[champion], stages[version]) == ("production", "archived")
    (entry,) = relevo.ledger(contested.model, action="version rolled back")
    assert (entry["actor"], entry["reason"], entry["facts"]["back_to"]) == ("admin", "we feel it", champion)
