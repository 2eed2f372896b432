"""Plants a model with half a year behind it, through the services that would have written it."""

from __future__ import annotations

import math
import os
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from numpy.random import Generator

from relevo.app.services import Services
from relevo.contract import store as contract_store
from relevo.contract.model import AppliedContract
from relevo.contract.parsing import parse_contract
from relevo.datasets.model import LoadedDataset
from relevo.features import Entity, FeatureView, latest, total
from relevo.features.model import view_id
from relevo.features.online import OnlineStore
from relevo.features.parity import Cause, Example, FeatureParity
from relevo.features.progress import Filled, microseconds, new_generation
from relevo.identity.model import Principal, Role
from relevo.monitoring import policy as monitoring_policy
from relevo.monitoring import store as monitoring_store
from relevo.monitoring.model import Estimate, FeatureDrift, Lag, Parity, Window, WindowState
from relevo.platform.activities import ActivityState
from relevo.platform.clock import utc_now
from relevo.platform.encoding import canonical, to_json
from relevo.predictions.columns import PREDICTIONS
from relevo.predictions.tables import LogTable, table_path
from relevo.registry.bundles import write_bundle
from relevo.releases.model import Evaluation, LoadFigures, ReleaseState
from relevo.retraining import store as retraining_store
from relevo.retraining.model import Decision
from relevo.runtimes.linear import FILE, LinearModel, Number
from relevo.runtimes.loading import PROBE_FILE
from relevo.runtimes.model import Column, ColumnType, Link, Signature
from relevo.serving import heartbeats
from relevo.serving.model import LATENCY_EDGES_MS, Counters, Heartbeat

MODEL = "flight-delay"
BEGIN = datetime(2013, 4, 1, tzinfo=UTC)
WEEK = timedelta(days=7)
WEEKS = 26
EXAMPLE = Path(__file__).parents[2] / "examples" / "flights" / "relevo.yaml"
INPUTS = ("hour", "carrier", "origin", "dest", "distance", "departure_delay_1h", "arrival_delay_3h", "flights_waiting",
          "previous_arrival_delay", "wind_speed", "precipitation", "visibility")  # fmt: skip
#: Week in which each version was trained, and how its release ended.
RELEASES = (
    (0, "live"),
    (4, "live"),
    (8, "rejected"),
    (12, "live"),
    (16, "rolled_back"),
    (20, "live"),
    (25, "waiting"),
)
REVIEWER = Principal("ruth", Role.REVIEWER)

#: What a load test of each version that got so far has measured.
LOAD = LoadFigures(
    requests=500,
    failed=0,
    concurrency=4,
    rows=1,
    p50_ms=1.42,
    p95_ms=2.61,
    p99_ms=4.37,
    requests_per_second=2410.0,
    is_looked_up=False,
)
_SIGNATURE = Signature(
    parse_contract(EXAMPLE.read_text(), str(EXAMPLE)).task,
    (
        Column("hour", ColumnType.INTEGER),
        Column("carrier", ColumnType.TEXT),
        Column("origin", ColumnType.TEXT),
        Column("distance", ColumnType.FLOAT),
        Column("wind_speed", ColumnType.FLOAT, view="weather"),
    ),
    keys=(Column("tailnum", ColumnType.TEXT),),
    at="scheduled_at",
    classes=("0", "1"),
)


VIEWS = (
    FeatureView(
        "weather",
        entity=Entity("airport", "origin"),
        source="weather",
        features={"wind_speed": latest("wind_speed")},
        fresh_within="3h",
    ),
    FeatureView(
        "previous_leg",
        entity=Entity("aircraft", "tailnum"),
        source="landings",
        features={"previous_arrival_delay": latest("arr_delay")},
        fresh_within="1d",
    ),
    FeatureView(
        "waiting_line",
        entity=Entity("airport", "origin"),
        source="queue",
        features={"flights_waiting": total("change", over="12h")},
    ),
)


def plant(services: Services) -> None:
    """Fill the home."""
    rng = np.random.default_rng(7)
    _apply(services)
    _features(services)
    _heartbeat(services)
    for number, (week, outcome) in enumerate(RELEASES, start=1):
        _release(services, number, BEGIN + week * WEEK, outcome, rng)
    _windows(services, rng)
    _log(services)


def _apply(services: Services) -> None:
    text = EXAMPLE.read_text()
    contract = parse_contract(text, str(EXAMPLE))
    applied = AppliedContract(MODEL, 1, contract, text, "5e" * 32, {"views": to_json(VIEWS)}, "8f3c2a91d04b", "maya")
    with services.state.transaction() as tx:
        contract_store.insert(tx, replace(applied, applied_at=utc_now()))
        services.clock.start_replay(tx, MODEL, BEGIN)
        services.serving.ensure_endpoint(tx, MODEL)


def _features(services: Services) -> None:
    """One view is fresh, one is stale, one was never filled; the last proof found a skew."""
    through = BEGIN + WEEKS * WEEK
    newest = {"weather": through - timedelta(hours=1), "previous_leg": through - timedelta(days=2)}
    filled = {
        view_id(MODEL, view): Filled(
            new_generation(), microseconds(through), "origin", microseconds(newest[view.name]), microseconds(through)
        )
        for view in VIEWS
        if view.name in newest
    }
    with closing(OnlineStore(services.settings.online_store)) as online:
        online.update(MODEL, lambda record: record.replaced(filled))
    example = Example("p1", through - timedelta(hours=3), {"origin": "JFK"}, 12.5, 14.25, 12.5, Cause.SOURCE)
    features = (
        FeatureParity("weather", "wind_speed", 812, 809, 1, 2, 30, 4, {Cause.SOURCE: 2}, (example,)),
        FeatureParity("previous_leg", "previous_arrival_delay", 842, 842, behind=11),
    )
    proof = Parity(
        model=MODEL, event_from=through - timedelta(days=1), event_to=through, versions=(4, 6), rows=842, sampled=842,
        unlogged=0, unfilled=0, compared=1654, exact=1651, close=1, different=2, sent=30, causes={Cause.SOURCE: 2},
        lag=Lag(842, 4.1, 8.2, 9.7, 31.0, 15), features=features, recorded_at=utc_now(), seconds=2.4,
    )  # fmt: skip
    with services.state.transaction() as tx:
        monitoring_store.add_parity(tx, proof)


def _release(services: Services, number: int, at: datetime, outcome: str, rng: Generator) -> None:
    release_id = f"deliver-{MODEL}-{at:%Y%m%dT%H%M}" if number > 1 else f"deliver-{MODEL}-r1"
    reason = f"version {number - 1} is 28 days old" if number > 1 else "contract revision 1 applied"
    requested_by = "relevo" if number > 1 else "maya"
    releases, champion = services.releases, services.serving.current_route(MODEL)
    with services.state.transaction() as tx:
        services.clock.advance(tx, MODEL, at)
    services.workflows.activities.begin(release_id, "deliver", MODEL)
    releases.begin(release_id, model=MODEL, revision=1, as_of=at, reason=reason, requested_by=requested_by)
    evaluation = _evaluation(rng, champion.champion if champion else None, is_worse=outcome == "rejected")
    facts = _facts(services, number, at, evaluation, release_id)
    folder = services.settings.folder("packed", str(number))
    model = LinearModel(Link.LOGISTIC, (0.0,), (Number(0, 16.0, 4.0, (1.0,)),))
    rows: list[list[object]] = [[17, "UA", "EWR", 1400.0, 9.2], [8, "B6", "JFK", 944.0, None]]
    answers = [1 / (1 + math.exp(-(row[0] - 16) / 4)) for row in rows]  # type: ignore[operator]
    write_bundle(
        folder,
        model=MODEL,
        version=number,
        run_id=f"{number:02d}c4d1e8f7a94b1e9a7d3c2b1a0f9e8d",
        runtime="lightgbm" if number > 2 else "linear",
        signature=_SIGNATURE,
        files={
            FILE: canonical(model),
            PROBE_FILE: canonical({"rows": rows, "outputs": answers, "tolerance": 1e-9}),
        },
        facts=facts,
    )
    with services.state.transaction() as tx:
        services.registry.seal(tx, folder, workflow_id=release_id, as_of=at)
    evidence = releases.judge(release_id, number, evaluation, facts)
    if evidence.passed:
        evidence = services.load_testing.judge(release_id, LOAD)
    if not evidence.passed:
        failed = "; ".join(gate.message for gate in evidence.gates if not gate.passed)
        releases.end(release_id, ReleaseState.REJECTED, failed)
        services.workflows.activities.set(release_id, ActivityState.DONE)
        return
    releases.await_approval(release_id)
    if outcome == "waiting":
        text = f"approval of {MODEL}/{number} by a second person (0 of 1)"
        services.workflows.activities.set(release_id, ActivityState.WAITING, text)
        return
    releases.decide(release_id, REVIEWER, approved=True, reason="All gates passed, and no slice is worse.")
    releases.load(release_id)
    if champion is not None:
        for percent in (5, 25, 50):
            with services.state.transaction() as tx:
                services.clock.advance(tx, MODEL, services.clock.now(MODEL, tx) + timedelta(hours=1))
            services.canary.shift(release_id, percent)
            if outcome == "rolled_back" and percent == 25:
                why = f"version {number} failed 2.40% of 500 requests, allowed are 1.00%"
                releases.end(release_id, ReleaseState.ROLLED_BACK, why)
                services.monitoring.report_release(MODEL, f"Canary rolled back: version {number} failed 2.40% of 500")
                services.workflows.activities.set(release_id, ActivityState.DONE)
                return
    releases.promote(release_id)
    services.workflows.activities.set(release_id, ActivityState.DONE)


def _evaluation(rng: Generator, champion: int | None, *, is_worse: bool) -> Evaluation:
    loss = 0.431 + _noise(rng, 0.004)
    margin = -0.002 if is_worse else 0.007
    metrics = {"roc_auc": 0.781 + _noise(rng, 0.004), "log_loss": loss, "brier": 0.139, "accuracy": 0.803,
               "average_precision": 0.561}  # fmt: skip
    theirs = {"roc_auc": metrics["roc_auc"] - 2 * margin, "log_loss": loss + margin, "brier": 0.141,
              "accuracy": 0.803, "average_precision": 0.549}  # fmt: skip
    slices = {
        name: {**metrics, "roc_auc": metrics["roc_auc"] + _noise(rng, 0.02), "rows": float(rows)}
        for name, rows in (
            ("origin=EWR", 4811), ("origin=JFK", 4402), ("origin=LGA", 4159), ("carrier=UA", 2391),
            ("carrier=B6", 2210), ("carrier=EV", 2044), ("carrier=DL", 1877),
        )
    }  # fmt: skip
    return Evaluation(
        metrics,
        champion,
        {} if champion is None else theirs,
        {"roc_auc": 0.5, "log_loss": 0.517, "brier": 0.169, "accuracy": 0.778, "average_precision": 0.222},
        slices,
        13_372,
        ("2013-03-16T00:05:00+00:00", "2013-03-30T00:00:00+00:00"),
    )


def _facts(
    services: Services, number: int, at: datetime, evaluation: Evaluation, workflow_id: str
) -> dict[str, object]:
    datasets: dict[str, object] = {}
    sources = (("flights", 80_121), ("departures", 78_010), ("landings", 77_804), ("weather", 6_438))
    for name, rows in sources:
        loaded = LoadedDataset(
            name, number, f"{number:02d}" + name[:2].encode().hex() * 15 + "00", rows + number * 9_000,
            {"a": "Float64", "b": "String", "at": "Datetime"}, at, True,
        )  # fmt: skip
        with services.state.transaction() as tx:
            services.datasets.record(
                tx, MODEL, loaded, snapshot="5e" * 32, workflow_id=workflow_id, created_at=utc_now()
            )
        datasets[name] = {"version": number, "digest": loaded.digest, "rows": loaded.rows}
    shares = np.array([0.24, 0.19, 0.15, 0.12, 0.09, 0.07, 0.05, 0.04, 0.02, 0.015, 0.01, 0.005])
    return {
        "as_of": at.isoformat(),
        "contract_revision": 1,
        "snapshot": "5e" * 32,
        "git_commit": "8f3c2a91d04b77e1",
        "datasets": datasets,
        "training_set": f"{number:02d}" + "a1" * 31,
        "rows": {"fitted": 66_021 + 9_000 * number, "held_out": 13_372, "unlabelled": 2_212},
        "trained_until": (at - timedelta(days=16)).isoformat(),
        "environment": "e0" * 32,
        "metrics": evaluation.metrics,
        "importances": dict(zip(INPUTS, shares.tolist(), strict=True)),
        "agreement": {
            "runtime": "lightgbm",
            "refused": [{"runtime": "linear", "reason": "LGBMClassifier is not linear"}],
            "rows": {"holdout": 2000, "null": 5, "unseen": 14, "extreme": 36, "large": 24},
            "largest_difference": 0.0,
            "tolerance": 1e-9,
        },
        "slices_left_out": {"carrier=OO": "12 rows, fewer than 200"},
    }


def _windows(services: Services, rng: Generator) -> None:
    for week in range(WEEKS):
        end = BEGIN + (week + 1) * WEEK
        state = WindowState.FINAL if week < WEEKS - 1 else WindowState.PROVISIONAL
        window = _window(services, week, state, rng)
        with services.state.transaction() as tx:
            services.clock.advance(tx, MODEL, max(end, services.clock.now(MODEL, tx)))
            monitoring_store.add_window(tx, window, utc_now())
            services.monitoring.judge(tx, MODEL)
            if state is WindowState.FINAL:
                fired = week in {11, 19}
                reason = "log_loss of version 2 is 0.467, 0.431 on its holdout" if fired else (
                    f"the rule held in {week % 2} of the last 3 windows, it needs 2"
                )  # fmt: skip
                release = f"deliver-{MODEL}-{end:%Y%m%dT%H%M}" if fired else None
                retraining_store.add_decision(tx, Decision(MODEL, end, 1, fired, reason, release, end, utc_now()))
    late = replace(_window(services, 3, WindowState.FINAL, rng), revision=2)
    with services.state.transaction() as tx:
        monitoring_store.add_window(tx, late, utc_now())


def _window(services: Services, week: int, state: WindowState, rng: Generator) -> Window:
    start = BEGIN + week * WEEK
    route = services.serving.route_at(MODEL, start + WEEK / 2)
    version = route.champion if route else 1
    age = week - RELEASES[version - 1][0]
    auc = 0.785 - 0.0035 * age + _noise(rng, 0.004) - (0.02 if week in {9, 10} else 0)
    loss = 0.431 + 0.004 * age + _noise(rng, 0.004)
    predictions = int(rng.normal(6_400, 320))
    coverage = 0.972 if state is WindowState.FINAL else 0.61
    labels = int(predictions * coverage)
    metrics = {
        "roc_auc": Estimate(auc, auc - 0.012, auc + 0.012, labels),
        "log_loss": Estimate(loss, loss - 0.010, loss + 0.010, labels),
        "brier": Estimate(0.14, 0.135, 0.146, labels),
        "accuracy": Estimate(0.8, 0.79, 0.81, labels),
        "average_precision": Estimate(0.55, 0.53, 0.57, labels),
    }
    drift = tuple(_drift(name, place, week, rng) for place, name in enumerate((*INPUTS, "(prediction)")))
    drop = 0.782 - auc
    return Window(
        endpoint=MODEL,
        start=start,
        end=start + WEEK,
        revision=1,
        state=state,
        predictions=predictions,
        failed=3 if week == 16 else 0,
        labels=labels,
        no_outcome=140,
        label_coverage=coverage,
        label_mean=0.22 + 0.06 * math.sin(week / 4),
        version=version,
        metrics=metrics,
        by_version={version: metrics},
        slices={f"origin={origin}": dict(metrics) for origin in ("EWR", "JFK", "LGA")},
        reference={"roc_auc": 0.782, "log_loss": 0.431, "brier": 0.139},
        performance_drop=drop,
        is_drop_significant=drop > 0.012,
        drift=drift,
        drift_share=monitoring_policy.drift_share(drift),
        quality=("visibility: 6.1% of the values are null, 0.9% in the baseline",) if week in {9, 10, 24, 25} else (),
    )  # fmt: skip


def _drift(name: str, place: int, week: int, rng: Generator) -> FeatureDrift:
    season = max(0.0, math.sin((week - place) / 6))
    psi = abs(_noise(rng, 0.02)) + 0.01 + (0.28 * season if place in {5, 6, 7, 9, 10} else 0.0)
    is_drifted = psi > 0.1
    return FeatureDrift(name, psi, psi * 0.4, 0.0001 if is_drifted else 0.41, 0.012, 0.009, 0.004, is_drifted)


def _heartbeat(services: Services) -> None:
    latency = [0] * (len(LATENCY_EDGES_MS) + 1)
    latency[4], latency[6], latency[10] = 120_000, 40_000, 900
    counters = {6: Counters(requests=160_900, rows=160_900, failed=3, latency_ms_total=110_000, latency=tuple(latency))}
    ready = dict.fromkeys(range(1, len(RELEASES) + 1), "ready")
    beat = Heartbeat(0, os.getpid(), "boot0", utc_now() + timedelta(hours=1), {MODEL: ready}, {MODEL: 1},
                     {MODEL: counters})  # fmt: skip
    heartbeats.write(services.settings.folder("gateway"), beat)


def _noise(rng: Generator, deviation: float) -> float:
    return float(rng.normal(0, deviation))


def _log(services: Services) -> None:
    """A few hundred logged predictions of the last window."""
    rows, start = 300, BEGIN + (WEEKS - 1) * WEEK
    asked_at = [start + WEEK * (place / rows) for place in range(rows)]
    values: dict[str, list[object]] = {
        "prediction_id": [f"p{place}" for place in range(rows)],
        "version": [6] * rows,
        "asked_at": list(asked_at),
        "logged_at": list(asked_at),
        "status": ["ok"] * rows,
        "prediction": [0.2] * rows,
    }
    frame = pl.DataFrame(
        [pl.Series(name, values.get(name, [None] * rows), dtype=kind) for name, kind in PREDICTIONS.items()]
    )
    frame = frame.with_columns(k_tailnum=pl.lit("N14228"), x_hour=pl.lit(17))
    LogTable(table_path(services.settings.root, "predictions", MODEL)).append(frame, {})
