"""Imports as durable steps: copy the files, build their environment, pack in a child, declare, release."""

from __future__ import annotations

import hashlib
import platform
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from relevo.contract.declaring import Declarations
from relevo.contract.model import AppliedContract
from relevo.contract.service import ContractService
from relevo.errors import Conflict, Invalid, JobFailed, NotFound
from relevo.imports import declaration
from relevo.imports.folder import FILES, MODEL, files_of
from relevo.imports.model import Asked, Packed
from relevo.imports.schema import describe
from relevo.platform.activities import ActivityState
from relevo.platform.encoding import parse, to_json
from relevo.platform.environments import pins, python_for
from relevo.platform.jobs import Job
from relevo.platform.resolving import resolve
from relevo.platform.settings import Settings
from relevo.platform.state import State
from relevo.platform.workflows import Workflows, WorkflowStatus
from relevo.registry.bundles import LOCK_FILE, write_bundle
from relevo.registry.model import ModelVersion
from relevo.registry.service import Registry
from relevo.runtimes.model_folder import FOLDER
from relevo.training.folder import RunFolder

NAME = "import"
_ENTRY = "relevo.imports.child"
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "PYTHONHASHSEED": "0",
    "OMP_WAIT_POLICY": "PASSIVE",
}


class Imports:
    """Registers and runs the workflow ``import``, and seals what it packed when the release begins. Thread-safe.

    Args:
        settings: Where runs keep their files, and environments.
        state: The state store.
        workflows: Records the steps; at its close the children end.
        artifacts: Root of MLflow's artifacts.
        contracts: The revisions, of declarations too.
        declarations: Where an imported model is declared.
        registry: Seals the bundle.
        release: Starts the release of a declaration that was recorded, for whoever asked; gives its id.
        is_over: Whether the release of that id ended by no fault of its version, so that it may be tried again.
    """

    def __init__(
        self,
        settings: Settings,
        state: State,
        workflows: Workflows,
        *,
        artifacts: Path,
        contracts: ContractService,
        declarations: Declarations,
        registry: Registry,
        release: Callable[[AppliedContract, str], str],
        is_over: Callable[[str], bool],
    ) -> None:
        self._settings = settings
        self._state = state
        self._workflows = workflows
        self._artifacts = artifacts
        self._contracts = contracts
        self._declarations = declarations
        self._registry = registry
        self._release = release
        self._is_over = is_over
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()
        workflows.on_close(self.close)
        workflows.register(NAME)(self.run)

    def begin(self, asked: Asked) -> str:
        """Start an import; while one of the same version runs, or has led to its release, its id is given instead.

        Raises:
            Invalid: The model has no usable signature, or was made by another Python.
            Conflict: The name is another model's.
        """
        self._declarations.check(asked.model, asked.registered.name)
        _check_python(asked, describe(self._artifacts / asked.registered.folder))
        attempt = 1
        while True:
            import_id = f"import-{asked.model}-v{asked.registered.version}-{attempt}"
            if self._may_start(import_id):
                self._workflows.start(NAME, import_id, model=asked.model, asked=to_json(asked))
                return import_id
            if not self._is_spent(import_id):
                return import_id
            attempt += 1

    def status(self, import_id: str) -> WorkflowStatus:
        """Where an import stands; its output is ``{"found": Packed and more, "release": id}``.

        Raises:
            NotFound: There is none of that id.
        """
        found = self._workflows.status(import_id)
        if found.name != NAME:
            raise NotFound(f"There is no import {import_id!r}.")
        return found

    def close(self) -> None:
        """End every child at once."""
        with self._lock:
            jobs = list(self._jobs.values())
            self._jobs.clear()
        for job in jobs:
            job.kill()
            job.close()

    # -- the workflow -------------------------------------------------------------------------------------------

    async def run(self, model: str, asked: dict[str, Any]) -> dict[str, Any]:
        """Prepare a bundle from the registered files, declare the model, and start its release."""
        flow, request = self._workflows, parse(Asked, asked)
        await flow.report(f"importing {request.label}: copying its files")
        await flow.step(self._copy, flow.workflow_id, request, name="copy")
        await flow.report(f"importing {request.label}: preparing its environment")
        environment = await flow.step(self._prepare, flow.workflow_id, request, name="environment")
        found = await flow.step(self._pack, flow.workflow_id, request, environment, name="pack")
        release = await flow.step(self._declare, flow.workflow_id, request, found, name="declare")
        return {"found": found, "release": release, "model": model, "version": request.registered.version}

    async def candidate(self, release_id: str, model: str, revision: int, champion: int | None) -> dict[str, Any]:
        """The sealed version of a declaration, as training gives one. Call it in the workflow of its release.

        Nothing was held out, so the evaluation is empty and says so.
        """
        sealed: dict[str, Any] = await self._workflows.step(
            self._seal, release_id, model, revision, name="seal", retries=3
        )
        note = None if champion is None else "It was imported, so there are no rows to compare it on."
        evaluation: dict[str, Any] = {
            "metrics": {}, "champion": champion, "champion_metrics": {}, "baseline_metrics": {}, "slices": {},
            "rows": 0, "champion_note": note,
        }  # fmt: skip
        return {**sealed, "evaluation": evaluation}

    # -- its steps ----------------------------------------------------------------------------------------------

    def _copy(self, import_id: str, asked: Asked) -> None:
        source, target = self._artifacts / asked.registered.folder, self._folder(import_id).path / MODEL
        if any(path.is_symlink() for path in source.rglob("*")):
            raise Invalid(f"The files of {asked.label} hold links; a model is made of plain files.")
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)

    def _prepare(self, import_id: str, asked: Asked) -> str:
        """Write the lock, build its environment, and say in words which one it is."""
        folder = self._folder(import_id)
        lock = folder.path / LOCK_FILE
        lock.unlink(missing_ok=True)
        if asked.environment == "own":
            return "Relevo's own, whatever the model requires (--environment own)"
        listed = folder.path / MODEL / "requirements.txt"
        if not listed.is_file():
            raise Invalid(
                f"{asked.label} has no requirements.txt, so its environment is not known.",
                hint="Log it with pip_requirements=[...], or import it with --environment own.",
            )
        try:
            lock.write_text(resolve(listed.read_text(encoding="utf-8"), f"requirements.txt of {asked.label}"))
            python = python_for(lock, self._settings)
        except (JobFailed, Invalid) as error:
            hint = f"{error.hint or ''} Or try Relevo's own environment: --environment own.".strip()
            raise type(error)(error.message, hint=hint) from None
        n_pins = len(pins(lock.read_text(), lock.name))
        own = python == python_for(None, self._settings)
        return f"{n_pins} pins, which Relevo's own environment satisfies" if own else f"{n_pins} pins, built by uv"

    def _pack(self, import_id: str, asked: Asked, environment: str) -> dict[str, Any]:
        folder = self._folder(import_id)
        described = describe(folder.path / MODEL)
        packed = self._call(import_id, asked)
        return folder.write(
            "packed",
            {
                **packed,
                "flavor": described.flavor,
                "environment": environment,
                "python": f"{platform.python_version()} (logged with {described.python_version or 'an unknown one'})",
                "logged_metrics": asked.registered.metrics,
                "run_id": asked.registered.run_id,
            },
        )

    def _call(self, import_id: str, asked: Asked) -> dict[str, Any]:
        folder = self._folder(import_id)
        lock = folder.path / LOCK_FILE
        python = python_for(lock if lock.is_file() else None, self._settings)

        def report(text: str, _: float | None) -> None:
            text = f"importing {asked.label}: {text}"
            self._workflows.activities.set(import_id, ActivityState.WORKING, text)

        with Job(_ENTRY, python=python, package=None, log=folder.path / "child.log", environment=_ENVIRONMENT) as job:
            with self._lock:
                self._jobs[import_id] = job
            try:
                if self._workflows.is_closing:
                    raise JobFailed(f"Import {import_id} stops: the control plane is closing.")
                return job.call("pack", report, folder=str(folder.path), asked=to_json(asked))
            finally:
                with self._lock:
                    self._jobs.pop(import_id, None)

    def _declare(self, import_id: str, asked: Asked, found: dict[str, Any]) -> str:
        packed = parse(Packed, {name: found[name] for name in Packed.__dataclass_fields__})
        contract = declaration.contract_of(asked, packed.signature, import_id)
        applied = self._declarations.declare(
            contract, declaration.text_of(contract, asked.uri), asked.actor, reason=asked.reason
        )
        return self._release(applied, asked.actor.name)

    def _seal(self, release_id: str, model: str, revision: int) -> dict[str, Any]:
        applied = self._contracts.revision(model, revision)
        imported = applied.contract.imported
        assert imported is not None
        version = self._sealed(applied.model, imported.version) or self._seal_new(release_id, applied)
        return {"version": version.number, "bundle": version.bundle, "facts": to_json(version.facts)}

    def _sealed(self, model: str, number: int) -> ModelVersion | None:
        """What an earlier release of the same version sealed: a version never changes."""
        return next((one for one in self._registry.versions(model) if one.number == number), None)

    def _seal_new(self, release_id: str, applied: AppliedContract) -> ModelVersion:
        imported = applied.contract.imported
        assert imported is not None
        folder = self._folder(imported.import_id)
        found = folder.read("packed")
        packed = parse(Packed, {name: found[name] for name in Packed.__dataclass_fields__})
        logged_at = describe(folder.path / MODEL).logged_at
        lock = folder.path / LOCK_FILE
        files = {**files_of(folder.path / FILES), **files_of(folder.path / MODEL, f"{FOLDER}/")}
        if lock.is_file():
            files[LOCK_FILE] = lock.read_bytes()
        shutil.rmtree(folder.bundle, ignore_errors=True)
        write_bundle(
            folder.bundle,
            model=applied.model,
            version=imported.version,
            run_id=str(found["run_id"]),
            runtime=packed.runtime,
            signature=packed.signature,
            files=files,
            facts={
                **{name: found[name] for name in ("flavor", "environment", "python", "libraries", "logged_metrics")},
                "agreement": packed.agreement,
                "compared_on": packed.compared_on,
                "contract_revision": applied.revision,
                "imported_from": f"models:/{imported.name}/{imported.version}",
                "requirements": hashlib.sha256(files.get(LOCK_FILE, b"")).hexdigest(),
            },
        )
        with self._state.transaction() as tx:
            sealed = self._registry.seal(
                tx, folder.bundle, workflow_id=release_id, as_of=logged_at, model=applied.model
            )
        for name in (MODEL, FILES, folder.bundle.name):
            shutil.rmtree(folder.path / name, ignore_errors=True)
        return sealed

    # -- within -------------------------------------------------------------------------------------------------

    def _may_start(self, import_id: str) -> bool:
        try:
            self._workflows.status(import_id)
        except NotFound:
            return True
        return False

    def _is_spent(self, import_id: str) -> bool:
        """Whether another attempt may follow: it failed, or its release did without a fault of the version."""
        status = self._workflows.status(import_id)
        if status.state == "succeeded":
            return self._is_over(status.output["release"])
        return status.state == "failed"

    def _folder(self, import_id: str) -> RunFolder:
        return RunFolder(self._settings.folder("jobs") / import_id)


def _check_python(asked: Asked, described: Any) -> None:
    """Code that was pickled by value is the bytecode of one minor version of Python."""
    minor = ".".join(platform.python_version_tuple()[:2])
    if described.is_python_code and not described.python_version.startswith(f"{minor}."):
        raise Conflict(
            f"{asked.label} holds Python code of Python {described.python_version}; Relevo runs {minor}.",
            hint=f"Log it again with Python {minor}, or as models from code (python_model='file.py').",
        )
