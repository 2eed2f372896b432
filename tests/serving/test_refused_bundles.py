"""A bundle that is not what was sealed: refused by a real worker, an alert says why, the current version answers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from gateway_home import ENDPOINT, SIGNATURE, Home

from relevo.contract.service import ContractService
from relevo.ledger.service import Ledger
from relevo.monitoring.model import Alert, AlertKind, Severity
from relevo.monitoring.references import References
from relevo.monitoring.service import Monitoring
from relevo.predictions.log import PredictionLog
from relevo.registry.bundles import SIGNATURE_FILE, BundleCache
from relevo.registry.service import Registry
from relevo.runtimes.linear import FILE
from relevo.runtimes.loading import PROBE_FILE


@pytest.fixture
def monitoring(home: Home) -> Monitoring:
    ledger = Ledger(home.state)
    return Monitoring(
        home.state,
        contracts=ContractService(home.state, home.objects, home.settings, ledger),
        references=References(Registry(home.state, home.objects, home.settings, ledger)),
        serving=home.serving,
        log=PredictionLog(home.settings),
        clock=home.clock,
        ledger=ledger,
    )


def cached(home: Home, bundle: str) -> Path:
    """The folder that the gateway loads the bundle from."""
    return BundleCache(home.objects, home.settings).fetch(bundle)


def changed_byte(home: Home) -> str:
    bundle = home.seal(2)
    home.spoil(bundle)
    return bundle


def changed_where_it_was_sealed(home: Home) -> str:
    bundle = home.seal(2)
    files = json.loads(home.objects.get_blob(bundle))["files"]
    name = next(file["sha256"] for file in files if file["path"] == FILE)
    sealed = home.settings.folder("objects") / "blobs" / name[:2] / name
    sealed.write_bytes(sealed.read_bytes().replace(b"2.0", b"3.0"))
    return bundle


def missing_file(home: Home) -> str:
    bundle = home.seal(2)
    (cached(home, bundle) / PROBE_FILE).unlink()
    return bundle


def bad_signature(home: Home) -> str:
    bundle = home.seal(2)
    path = cached(home, bundle) / SIGNATURE_FILE
    path.write_bytes(bytes(len(path.read_bytes())))
    return bundle


def unknown_runtime(home: Home) -> str:
    return home.keep(2, "tensorflow", SIGNATURE, {PROBE_FILE: b'{"rows":[],"outputs":[],"tolerance":1e-9}'})


def open_alerts(monitoring: Monitoring) -> list[Alert]:
    monitoring.judge_loading()
    return list(monitoring.alerts(open_only=True))


def serve_first_version(home: Home) -> None:
    home.endpoint("buffered")
    home.place(1)
    home.route((1, 100))
    home.start()
    home.serving.await_loaded(ENDPOINT, 1, 20)


def place(home: Home, bundle: str) -> None:
    with home.state.transaction() as tx:
        home.serving.place(tx, ENDPOINT, 2, bundle)


def answering_version(home: Home, client: httpx.Client) -> int:
    answer = home.predict(client)
    assert answer.status_code == 200, answer.text
    version: int = answer.json()["version"]
    return version


@pytest.mark.parametrize(
    ("spoilt", "why"),
    [
        (changed_byte, f"{FILE} of the bundle of flight-delay/2 was changed: expected SHA-256"),
        (changed_where_it_was_sealed, f"{FILE} of the bundle of flight-delay/2 was changed: Blob "),
        (missing_file, f"The bundle of flight-delay/2 lacks {PROBE_FILE}."),
        (bad_signature, f"{SIGNATURE_FILE} of the bundle"),
        (unknown_runtime, "Unknown runtime 'tensorflow'; expected one of"),
    ],
)
def test_a_refused_bundle_is_an_alert_that_says_why_while_the_current_version_answers(
    home: Home, monitoring: Monitoring, spoilt: Callable[[Home], str], why: str
) -> None:
    serve_first_version(home)
    assert open_alerts(monitoring) == []
    load = home.load(callers=2)
    place(home, spoilt(home))
    home.eventually(lambda: open_alerts(monitoring) != [])
    (alert,) = monitoring.alerts(open_only=True)
    assert (alert.endpoint, alert.kind, alert.severity) == (ENDPOINT, AlertKind.BUNDLE, Severity.CRITICAL)
    assert f"The gateway refuses flight-delay/2: {why}" in alert.message
    assert alert.message.endswith("Version 1 answers as before.")
    load.more(50)
    load.stop()
    assert load.failures == []
    assert set(load.versions) == {1}
    assert [one.id for one in open_alerts(monitoring)] == [alert.id]  # another look raises no second one
    with home.state.transaction() as tx:
        home.serving.unplace(tx, ENDPOINT, 2)
    home.eventually(lambda: open_alerts(monitoring) == [])


def test_a_share_of_the_traffic_goes_to_the_champion_while_the_bundle_of_a_canary_is_refused(
    home: Home, monitoring: Monitoring
) -> None:
    serve_first_version(home)
    place(home, changed_byte(home))
    home.route((1, 50), (2, 50))
    home.eventually(lambda: open_alerts(monitoring) != [])
    with home.client() as client:
        assert {answering_version(home, client) for _ in range(20)} == {1}


def test_the_alert_is_resolved_once_the_worker_has_loaded_a_mended_bundle(home: Home, monitoring: Monitoring) -> None:
    serve_first_version(home)
    bundle = changed_byte(home)
    folder = home.settings.folder("cache", "bundles") / bundle
    place(home, bundle)
    home.eventually(lambda: open_alerts(monitoring) != [])
    shutil.rmtree(folder)  # the worker fetches it anew from where it was sealed
    home.eventually(lambda: open_alerts(monitoring) == [], seconds=30)
    assert home.serving.loading()[ENDPOINT] == {1: ["ready"], 2: ["ready"]}
    actions = [entry.action for entry in Ledger(home.state).entries(limit=10)]
    assert actions[:2] == ["alert resolved", "alert raised"]


def test_a_gateway_that_does_not_run_leaves_the_alert_as_it_is(home: Home, monitoring: Monitoring) -> None:
    serve_first_version(home)
    place(home, changed_byte(home))
    home.eventually(lambda: open_alerts(monitoring) != [])
    home.stop_workers()
    assert home.serving.live_workers() == []
    assert len(open_alerts(monitoring)) == 1


def test_a_version_that_answers_is_refused_after_a_restart_and_the_alert_says_that_nothing_else_answers(
    home: Home, monitoring: Monitoring
) -> None:
    home.endpoint("buffered")
    bundle = home.seal(2)
    place(home, bundle)
    home.route((2, 100))
    home.start()
    home.serving.await_loaded(ENDPOINT, 2, 20)
    home.stop_workers()
    home.spoil(bundle)
    home.start()
    home.eventually(lambda: open_alerts(monitoring) != [])
    (alert,) = monitoring.alerts(open_only=True)
    assert alert.message.endswith("No other version answers.")
    with home.client() as client:
        answer = home.predict(client)
    assert (answer.status_code, "was changed" in answer.json()["error"]["message"]) == (503, True)
