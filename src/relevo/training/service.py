"""Training as durable steps: each is one call to the run's child, which is started again when it is gone."""

from __future__ import annotations

import asyncio
import os
import threading
from datetime import datetime, timedelta
from typing import Any

from relevo.contract.model import AppliedContract
from relevo.contract.service import ContractService
from relevo.datasets.connections import variables
from relevo.datasets.model import LoadedDataset
from relevo.datasets.service import Datasets
from relevo.errors import JobFailed
from relevo.features.expressions import Transform
from relevo.features.model import FeatureView
from relevo.identity.model import RELEVO, Role
from relevo.identity.service import Identity
from relevo.platform.activities import ActivityState
from relevo.platform.clock import utc_now
from relevo.platform.encoding import digest, parse, to_json
from relevo.platform.jobs import Job
from relevo.platform.settings import Settings
from relevo.platform.state import State
from relevo.platform.workflows import Workflows
from relevo.registry.service import Registry
from relevo.training.folder import RunFolder
from relevo.training.model import Champion, Run

_ENTRY = "relevo.training.child"
_TOKEN_LIFETIME = timedelta(days=1)


class Training:
    """Trains candidates inside a durable workflow. One per process; thread-safe.

    Args:
        settings: Where runs keep their files, and where MLflow is.
        state: The state store.
        workflows: Records the steps; at its close the children end.
        contracts: The applied contracts and their code.
        datasets: Remembers the versions that were loaded.
        registry: Seals the candidate, and gives the champion's bundle.
        identity: Makes the run's token for MLflow.
        tracking_url: Of MLflow; default: this installation's own.
    """

    def __init__(
        self,
        settings: Settings,
        state: State,
        workflows: Workflows,
        *,
        contracts: ContractService,
        datasets: Datasets,
        registry: Registry,
        identity: Identity,
        tracking_url: str | None = None,
    ) -> None:
        self._settings = settings
        self._state = state
        self._workflows = workflows
        self._contracts = contracts
        self._datasets = datasets
        self._registry = registry
        self._identity = identity
        self._tracking_url = tracking_url or f"http://{settings.own_host}:{settings.port}/mlflow"
        self._jobs: dict[str, tuple[Job, str]] = {}
        self._lock = threading.Lock()
        workflows.on_close(self.close)

    async def train(
        self, run_id: str, model: str, revision: int, as_of: datetime, champion: int | None
    ) -> dict[str, Any]:
        """A sealed candidate, from the contract's revision and what was known at ``as_of``. Call it in a workflow.

        The workflow's id names the run in MLflow; every step may be repeated after a crash.

        Args:
            run_id: Names the run and its folder.
            model: Whose contract.
            revision: Of the contract.
            as_of: Event time.
            champion: The version to compare with; None when there is none.

        Returns:
            ``{"version": number, "bundle": digest, "evaluation": Evaluation, "facts": pins and evidence}``, plain JSON.

        Raises:
            JobFailed: The team's code or data is at fault; nothing is sealed.
        """
        step, workflow_id = self._workflows.step, self._workflows.workflow_id
        try:
            await step(self._prepare, run_id, model, revision, as_of, champion, name="prepare")
            await step(self._load, run_id, name="load sources")
            await step(self._call, run_id, "build", name="build training set")
            await step(self._call, run_id, "fit", name="fit")
            evaluation = await step(self._call, run_id, "evaluate", name="evaluate")
            await step(self._call, run_id, "track", name="track")
            await step(self._call, run_id, "pack", name="pack")
            sealed = await step(self._seal, run_id, name="seal", retries=3)
        finally:
            # At shutdown the workflow's own coroutine is cancelled, and close() has ended the child already.
            if not self._workflows.is_closing:
                await asyncio.to_thread(self._end, run_id, workflow_id)
        return {**sealed, "evaluation": evaluation}

    def folder(self, run_id: str) -> RunFolder:
        """The files of a run."""
        # An id may hold characters that no folder should; its digest keeps two ids apart.
        plain = "".join(character if character.isalnum() or character in "-_" else "_" for character in run_id)
        return RunFolder(self._settings.folder("jobs") / f"{plain[:100]}-{digest(run_id)[:8]}")

    def close(self) -> None:
        """End every child at once."""
        with self._lock:
            jobs = [job for job, _ in self._jobs.values()]
            self._jobs.clear()
        for job in jobs:
            job.kill()
            job.close()

    def _prepare(self, run_id: str, model: str, revision: int, as_of: datetime, champion: int | None) -> None:
        applied = self._contracts.revision(model, revision)
        lock = self._contracts.lock(applied.snapshot)
        self._contracts.python(applied)  # may build an environment, so that no later step waits for it
        run = Run(
            id=run_id,
            workflow_id=self._workflows.workflow_id,
            model=model,
            revision=revision,
            as_of=as_of,
            contract=applied.contract,
            views=_views(applied),
            transforms=_transforms(applied),
            package=str(self._contracts.snapshot_folder(applied.snapshot)),
            snapshot=applied.snapshot,
            tables=str(self._settings.folder("tables", model)),
            lock=None if lock is None else str(lock),
            git_commit=applied.git_commit,
            champion=None if champion is None else self._champion(model, champion),
            tracking_url=self._tracking_url,
        )
        self.folder(run_id).write("run", run)

    def _champion(self, model: str, number: int) -> Champion:
        version = self._registry.version(model, number)
        folder = self._registry.fetch(version.bundle)
        return Champion(number, str(folder), str(self._registry.python(folder)))

    def _load(self, run_id: str) -> dict[str, Any]:
        run = self.folder(run_id).run()
        with self._state.transaction() as tx:
            names = [source.name for source in run.contract.sources]
            last = self._datasets.hold(tx, run.model, names, holder=run.workflow_id)
        found = self._call(run_id, "load_sources", last=last)
        with self._state.transaction() as tx:
            for loaded in found.values():
                self._datasets.record(
                    tx,
                    run.model,
                    parse(LoadedDataset, loaded),
                    snapshot=run.snapshot,
                    workflow_id=run.workflow_id,
                    created_at=utc_now(),
                )
        return {name: loaded["version"] for name, loaded in found.items()}

    def _call(self, run_id: str, function: str, **arguments: object) -> dict[str, Any]:
        """One step in the run's child. A child that died in an earlier step is replaced; one that dies now fails it."""
        workflow_id, model = self._workflows.workflow_id, self.folder(run_id).run().model

        def report(text: str, fraction: float | None) -> None:
            done = "" if fraction is None else f" ({fraction:.0%})"
            self._workflows.activities.set(workflow_id, ActivityState.WORKING, f"training {model}: {text}{done}")

        return self._job(run_id).call(function, report, run=str(self.folder(run_id).path), **arguments)

    def _job(self, run_id: str) -> Job:
        with self._lock:
            job, token = self._jobs.get(run_id, (None, ""))
        if job is not None and job.is_alive:
            return job
        if job is not None:
            job.close()
        applied = self._applied(run_id)
        folder, token = self.folder(run_id), token or self._token(run_id)
        job = Job(
            _ENTRY,
            python=self._contracts.python(applied),
            package=self._contracts.snapshot_folder(applied.snapshot),
            log=folder.path / "child.log",
            environment=_environment(token) | variables(applied.contract.sources, os.environ),
        )
        with self._lock:
            self._jobs[run_id] = (job, token)
        if self._workflows.is_closing:
            self.close()
            raise JobFailed(f"Run {run_id} stops: the control plane is closing.")
        return job

    def _applied(self, run_id: str) -> AppliedContract:
        run = self.folder(run_id).run()
        return self._contracts.revision(run.model, run.revision)

    def _token(self, run_id: str) -> str:
        with self._state.transaction() as tx:
            return self._identity.create_token(
                tx, RELEVO.name, Role.RUN, note=f"run {run_id}"[:256], expires_at=utc_now() + _TOKEN_LIFETIME
            )

    def _end(self, run_id: str, workflow_id: str) -> None:
        with self._state.transaction() as tx:
            self._datasets.let_go(tx, workflow_id)
        with self._lock:
            job, token = self._jobs.pop(run_id, (None, ""))
        if job is None:
            return
        job.close()
        with self._state.transaction() as tx:
            self._identity.revoke(tx, self._identity.token_id(token), reason="the run has ended")

    def _seal(self, run_id: str) -> dict[str, Any]:
        folder = self.folder(run_id)
        run = folder.run()
        with self._state.transaction() as tx:
            version = self._registry.seal(
                tx,
                folder.bundle,
                workflow_id=run.workflow_id,
                as_of=run.as_of,
                model=run.model,  # the manifest was written beside the team's code
                created_at=utc_now(),
            )
        folder.clear()
        return {"version": version.number, "bundle": version.bundle, "facts": to_json(version.facts)}


def _views(applied: AppliedContract) -> tuple[FeatureView, ...]:
    described = applied.description.get("views", [])
    assert isinstance(described, list)
    return tuple(parse(FeatureView, view) for view in described)


def _transforms(applied: AppliedContract) -> tuple[Transform, ...]:
    described = applied.description.get("transforms", [])
    assert isinstance(described, list)
    return tuple(parse(Transform, transform) for transform in described)


def _environment(token: str) -> dict[str, str]:
    return {
        "MLFLOW_TRACKING_TOKEN": token,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
        "GIT_PYTHON_REFRESH": "quiet",
        # The same hashes in every run, so that sets and dictionaries of a team's code come in the same order.
        "PYTHONHASHSEED": "0",
        # Threads of a fit that spin while they wait cost several times the fit when cores are shared.
        "OMP_WAIT_POLICY": "PASSIVE",
    }
