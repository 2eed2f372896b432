"""The load test of a release: the version alone on the real gateway, asked with its own held-out rows.

It is a gate before people decide: the version stands by on the gateway, without a share of the traffic, and a token of
the test's own asks for it by header. Those requests are neither logged nor counted, so that no window, no arm and no
label ever sees them.

What is sent is what callers send: the inputs of the contract and the keys of feature views, not the asked time, so that
features are looked up as of now, as for live traffic. Only while the online store was never filled for the version's
views, as before the first release, are the features sent with the rows: every look-up would find nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from relevo.contract.model import LoadTest
from relevo.errors import Invalid, Unavailable
from relevo.features.service import FeatureService
from relevo.identity.model import RELEVO, Role
from relevo.identity.service import Identity
from relevo.platform.clock import utc_now
from relevo.platform.encoding import parse, to_json
from relevo.platform.jobs import Job
from relevo.platform.settings import Settings
from relevo.platform.state import State
from relevo.registry.bundles import read_manifest
from relevo.registry.load_rows import LOAD_ROWS_FILE, read_load_rows
from relevo.registry.service import Registry
from relevo.releases.load_child import TOKEN
from relevo.releases.model import Evidence, LoadFigures, Release
from relevo.releases.policy import judge_load
from relevo.releases.rollout import Rollout, required_version
from relevo.releases.service import Releases
from relevo.serving.service import Serving

#: A run that misses the latency is done again, so many in all: a busy machine is no property of the version.
RUNS = 3
_ENTRY = "relevo.releases.load_child"
_TOKEN_LIFETIME = timedelta(minutes=10)
_NAME = "load test"


class LoadTesting:
    """Steps of a release's workflow. Thread-safe; each step may be repeated.

    Args:
        state: The state store.
        settings: Where the gateway listens, and where the callers write their log.
        releases: The release under way, and its evidence.
        registry: Gives the sealed bundle with its rows.
        serving: Places the version.
        identity: Makes the test's token.
        features: Knows which views the online store can answer for.
    """

    def __init__(
        self,
        state: State,
        settings: Settings,
        *,
        releases: Releases,
        registry: Registry,
        serving: Serving,
        identity: Identity,
        features: FeatureService,
    ) -> None:
        self._state = state
        self._settings = settings
        self._releases = releases
        self._registry = registry
        self._serving = serving
        self._rollout = Rollout(registry, serving)
        self._identity = identity
        self._features = features

    def measure(self, release_id: str) -> LoadFigures | None:
        """Figures of the release's version under load; None when its contract asks for no test.

        Raises:
            Unavailable: The gateway does not run, cannot load the version, or went away meanwhile.
            Invalid: The version was sealed without rows to send.
        """
        release = self._releases.release(release_id)
        contract = self._releases.contract_of(release)
        test, slo = contract.release.load_test, contract.release.slo
        if test.requests == 0:
            return None
        self._stand_by(release_id)
        runs: list[LoadFigures] = []
        with self._callers(release) as callers:
            while len(runs) < RUNS:
                workers = self._workers()
                runs.append(callers.run(test))
                if self._workers() != workers:
                    raise Unavailable(f"The gateway went away in the load test of {release.model}/{release.version}.")
                latency, errors = judge_load(slo, runs[-1])
                if not errors.passed:  # that is no noise
                    return replace(runs[-1], runs=len(runs))
                if latency.passed:
                    break
        return replace(min(runs, key=lambda each: each.p99_ms), runs=len(runs))

    def judge(self, release_id: str, found: LoadFigures) -> Evidence:
        """Judge the figures by the contract's service level, and add the verdicts to the evidence."""
        contract = self._releases.contract_of(self._releases.release(release_id))
        gates = judge_load(contract.release.slo, found)
        return self._releases.judge_further(release_id, _NAME, gates, {"load_test": to_json(found)})

    def _workers(self) -> set[str]:
        """The boots of the workers that run."""
        return {worker.boot for worker in self._serving.live_workers()}

    def _stand_by(self, release_id: str) -> None:
        """Place the version, in staging and without any traffic, and wait until it is loaded and probed everywhere."""
        with self._state.transaction() as tx:
            release = self._releases.locked(tx, release_id)
            version = required_version(release)
            self._rollout.stage(tx, release)
            self._rollout.stand_by(tx, release.model, version, self._releases.contract_of(release))
        self._rollout.await_loaded(release.model, version)

    @contextmanager
    def _token(self, label: str) -> Iterator[str]:
        """A token that may ask one version, and nothing else; it ends with the test."""
        expires_at, note = utc_now() + _TOKEN_LIFETIME, f"load test of {label}"
        with self._state.transaction() as tx:
            token = self._identity.create_token(tx, RELEVO.name, Role.LOAD_TEST, note=note, expires_at=expires_at)
        try:
            yield token
        finally:
            with self._state.transaction() as tx:
                self._identity.revoke(tx, self._identity.token_id(token), reason="the load test has ended")

    @contextmanager
    def _callers(self, release: Release) -> Iterator[Callers]:
        version = required_version(release)
        label = f"{release.model}/{version}"
        folder = self._registry.fetch(self._registry.version(release.model, version).bundle)
        if read_load_rows(folder) is None:
            raise Invalid(
                f"Version {label} was sealed without {LOAD_ROWS_FILE}, so a load test has nothing to send.",
                hint="Train it again, or set release.load_test.requests to 0.",
            )
        log = self._settings.folder("logs") / "load-test.log"
        with (
            self._token(label) as token,
            Job(_ENTRY, python=Path(sys.executable), package=None, log=log, environment={TOKEN: token}) as job,
        ):
            yield Callers(
                job,
                host=self._settings.own_host,
                port=self._settings.gateway_port,
                bundle=folder,
                is_looked_up=self._features.are_filled(release.model, read_manifest(folder).views),
            )


class Callers:
    """The process of the callers, and what they send for one version."""

    def __init__(self, job: Job, *, host: str, port: int, bundle: Path, is_looked_up: bool) -> None:
        self._job = job
        self._host = host
        self._port = port
        self._bundle = bundle
        self._manifest = read_manifest(bundle)
        self._is_looked_up = is_looked_up

    def run(self, test: LoadTest) -> LoadFigures:
        """The figures of one run.

        Raises:
            Unavailable: The gateway went away meanwhile.
        """
        signature = self._manifest.signature
        inputs = [column.name for column in signature.inputs if column.is_asked or not self._is_looked_up]
        answer = self._job.call(
            "run",
            host=self._host,
            port=self._port,
            endpoint=self._manifest.model,
            version=self._manifest.version,
            bundle=str(self._bundle),
            sent=[*inputs, *(column.name for column in signature.keys)],
            requests=test.requests,
            concurrency=test.concurrency,
            rows=test.rows,
        )
        if "away" in answer:
            label = f"{self._manifest.model}/{self._manifest.version}"
            raise Unavailable(f"The gateway went away in the load test of {label}: {answer['away']}.")
        how = {"concurrency": test.concurrency, "rows": test.rows, "is_looked_up": self._is_looked_up}
        return parse(LoadFigures, {**answer, **how})
