"""Seal versions, read them, and move them between stages."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from relevo.errors import Conflict, Invalid, NotFound
from relevo.identity.model import RELEVO, Principal
from relevo.ledger.service import Ledger
from relevo.platform.clock import utc_now
from relevo.platform.objects import Objects
from relevo.platform.settings import Settings
from relevo.platform.state import State, Transaction
from relevo.registry import store
from relevo.registry.bundles import BundleCache, read_manifest, store_bundle
from relevo.registry.keys import load_signing_key
from relevo.registry.model import ModelVersion, Stage


class Registry:
    """Model versions. A version is there only once its bundle is sealed. Thread-safe.

    Args:
        state: The state store.
        objects: Where bundles are kept.
        settings: Give the home folder; the key pair in ``keys/`` is made when it is missing.
        ledger: Records each sealing.
    """

    def __init__(self, state: State, objects: Objects, settings: Settings, ledger: Ledger) -> None:
        self._state = state
        self._objects = objects
        self._ledger = ledger
        self._key = load_signing_key(settings.folder("keys"))
        self._bundles = BundleCache(objects, settings)

    def seal(
        self,
        tx: Transaction,
        folder: Path,
        *,
        workflow_id: str,
        as_of: datetime,
        model: str | None = None,
        created_at: datetime | None = None,
        actor: Principal = RELEVO,
    ) -> ModelVersion:
        """Verify, sign and keep the bundle in ``folder``, and record its version as a candidate.

        The bundle's manifest gives model, number, run and facts. The same workflow again gets the version that it
        sealed before.

        Args:
            tx: The transaction that records it.
            folder: What ``write_bundle`` wrote.
            workflow_id: The workflow that trained it.
            as_of: Event time up to which it learned.
            model: When given, the manifest must name this model: it was written beside the team's code.
            created_at: Wall time; default: now.
            actor: Who is named in the ledger.

        Raises:
            Corrupted: The files are not those of the manifest.
            Invalid: The manifest is of another model.
            Conflict: Another workflow has sealed this number.
        """
        manifest = read_manifest(folder)
        if model is not None and manifest.model != model:
            raise Invalid(f"Expected a bundle of {model}, got one of {manifest.model}.")
        existing = store.find(tx, manifest.model, manifest.version)
        if existing is not None:
            if existing.workflow_id != workflow_id:
                raise Conflict(f"Version {existing.label} is sealed already, by workflow {existing.workflow_id}.")
            return existing
        version = ModelVersion(
            model=manifest.model,
            number=manifest.version,
            stage=Stage.CANDIDATE,
            bundle=store_bundle(folder, manifest, self._objects, self._key),
            run_id=manifest.run_id,
            workflow_id=workflow_id,
            created_at=created_at or utc_now(),
            as_of=as_of,
            facts={**manifest.facts, "runtime": manifest.runtime},
        )
        store.insert(tx, version)
        self._ledger.append(
            tx,
            actor=actor,
            action="version sealed",
            subject=version.label,
            evidence=version.bundle,
            facts={"run": version.run_id, "runtime": manifest.runtime},
            event_at=as_of,
            once=(workflow_id, f"seal {version.label}"),
        )
        return version

    def version(self, model: str, number: int, tx: Transaction | None = None) -> ModelVersion:
        """The version; inside a transaction that has changed it, pass that one.

        Raises:
            NotFound: With the numbers that there are.
        """
        if tx is None:
            with self._state.read() as reading:
                return self.version(model, number, reading)
        found = store.find(tx, model, number)
        if found is None:
            numbers = [str(version.number) for version in store.list_versions(tx, model)][:5]
            there = f"the newest are {', '.join(numbers)}" if numbers else "the model has none yet"
            raise NotFound(f"There is no version {model}/{number}; {there}.")
        return found

    def versions(self, model: str) -> list[ModelVersion]:
        """Every version of the model, newest first."""
        with self._state.read() as tx:
            return store.list_versions(tx, model)

    def champion(self, model: str, tx: Transaction | None = None) -> ModelVersion | None:
        """The version in production, None when there is none."""
        if tx is None:
            with self._state.read() as reading:
                return self.champion(model, reading)
        return next(iter(store.find_in_stage(tx, model, Stage.PRODUCTION)), None)

    def set_stage(self, tx: Transaction, model: str, number: int, stage: Stage) -> ModelVersion:
        """Move a version to a stage and return it. One that was in production before it becomes archived.

        The caller records why in the ledger, in the same transaction. Moving it where it stands changes nothing.

        Raises:
            NotFound: There is no such version.
        """
        version = self.version(model, number, tx)
        if version.stage is stage:
            return version
        if stage is Stage.PRODUCTION and (before := self.champion(model, tx)) is not None:
            store.update_stage(tx, model, before.number, Stage.ARCHIVED)
        store.update_stage(tx, model, number, stage)
        return self.version(model, number, tx)

    def python(self, folder: Path) -> Path:
        """The interpreter for the original model of the bundle in ``folder``."""
        return self._bundles.python(folder)

    def fetch(self, bundle: str) -> Path:
        """A local folder with that bundle, verified just now."""
        return self._bundles.fetch(bundle)
