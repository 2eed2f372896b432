"""A release whose version shadows the champion before its canary, under real traffic."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from running import Load, Relevo, eventually
from team import Project, apply_next, finish_canary


@pytest.fixture(autouse=True)
def _as_it_was(contested: Project) -> Iterator[None]:
    """The contract without what a test changed in it."""
    path = contested.folder / "relevo.yaml"
    text = path.read_text()
    yield
    path.write_text(text)


def test_a_shadow_is_asked_for_real_before_any_caller_meets_the_version(relevo: Relevo, contested: Project) -> None:
    ((champion, _),) = relevo.shares(contested.model)
    declared = "shadow: {minutes: 10, requests: 20, max_difference: 1, min_agreement: 0}"
    contested.change("relevo.yaml", "canary: {", f"{declared}\n  canary: {{")
    with Load(relevo, contested.model).running() as load:
        release = apply_next(relevo, contested)
        relevo.await_state(release, "waiting_for_approval")
        relevo.approve(release)
        version = relevo.await_state(release, "shadow")["version"]
        load.await_more(40)
        assert relevo.shares(contested.model) == [(champion, 100)]
        assert version not in load.versions
        assert finish_canary(relevo, contested, release) == version
        eventually(lambda: load.versions.get(version, 0) > 3, "the version to be asked")
    assert load.failures == []
    (entry,) = [
        one for one in relevo.ledger(contested.model, action="shadow judged") if one["facts"]["release"] == release
    ]
    figures = entry["facts"]["figures"]
    assert entry["facts"]["passed"] is True
    assert figures["requests"] >= 20
    assert figures["failed"] == 0
    assert 0 <= figures["difference"] <= 1
    assert 0 <= figures["agreement"] <= 1
