"""Plan and apply contracts, and find the applied ones and the code that they run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import sqlalchemy as sa

from relevo.contract import policy, store
from relevo.contract.declaring import check_free
from relevo.contract.model import AppliedContract, Change, Contract
from relevo.contract.snapshot import LOCK_NAME, Snapshots
from relevo.contract.upload import Upload, parse_upload
from relevo.errors import Conflict, NotFound, nearest
from relevo.identity.model import Principal
from relevo.ledger.service import Ledger
from relevo.platform.clock import utc_now
from relevo.platform.encoding import digest
from relevo.platform.environments import python_for
from relevo.platform.jobs import Job
from relevo.platform.objects import Objects
from relevo.platform.settings import Settings
from relevo.platform.state import State, Transaction


class ContractService:
    """The contracts of one home. Thread-safe; the team's code runs in child processes only."""

    def __init__(self, state: State, objects: Objects, settings: Settings, ledger: Ledger) -> None:
        self._state = state
        self._settings = settings
        self._ledger = ledger
        self._snapshots = Snapshots(objects, settings.folder("snapshots"))

    def plan(self, content: bytes) -> Change:
        """What applying the upload would change. Nothing is applied; the snapshot is stored, and described by a child.

        Args:
            content: What ``read_project`` gave.

        Raises:
            Invalid: The contract or the package has mistakes; the message lists each with its line.
            TooLarge: The upload is too large.
            JobFailed: The package brought its process down.
            Conflict: The name belonged to a model that was deleted.
        """
        planned = self._planned(content)
        with self._state.read() as tx:
            return self._change(tx, planned)

    def apply(self, content: bytes, actor: Principal, *, reason: str = "") -> Change:
        """Make the upload the live contract of its model; a revision and a ledger entry, or neither.

        Applying what is live again changes nothing and records nothing.

        Raises:
            Invalid: The contract or the package has mistakes; nothing is applied.
            TooLarge: The upload is too large.
            JobFailed: The package brought its process down.
            Conflict: The name belonged to a model that was deleted, or somebody else applied at the same moment.
        """
        planned = dataclasses.replace(self._planned(content), applied_by=actor.name)
        try:
            with self._state.transaction() as tx:
                change = self._change(tx, planned)
                if change.is_empty:
                    return change
                applied = dataclasses.replace(planned, revision=change.revision, applied_at=utc_now())
                store.insert(tx, applied)
                self._record(tx, applied, change, actor, reason)
                return dataclasses.replace(change, is_applied=True)
        except sa.exc.IntegrityError as error:
            raise Conflict(
                f"Somebody else applied {planned.model} at the same moment; look, then apply again."
            ) from error

    def delete(self, tx: Transaction, model: str, actor: Principal, *, reason: str) -> None:
        """Take a model out of use. Its name is never given again, its revisions stay on record.

        Raises:
            NotFound: There is no such model.
        """
        applied = self._required(tx, model)
        store.mark_deleted(tx, model, utc_now())
        facts = {"revision": applied.revision}
        self._ledger.append(tx, actor=actor, action="model deleted", subject=model, reason=reason, facts=facts)

    def current(self, model: str, tx: Transaction | None = None) -> AppliedContract:
        """The live contract of a model.

        Raises:
            NotFound: There is no such model; the message names the nearest one.
        """
        if tx is not None:
            return self._required(tx, model)
        with self._state.read() as reading:
            return self._required(reading, model)

    def revision(self, model: str, number: int) -> AppliedContract:
        """One revision of a contract, as it was applied.

        Raises:
            NotFound: There is no such revision.
        """
        with self._state.read() as tx:
            applied = store.revision(tx, model, number)
        if applied is None:
            raise NotFound(f"There is no revision {number} of a contract {model!r}.")
        return applied

    def revisions(self, model: str) -> list[AppliedContract]:
        """Every revision of a model's contract, the newest first; none when there never was such a model."""
        with self._state.read() as tx:
            return store.revisions(tx, model)

    def models(self) -> list[str]:
        """The names of the models in use, sorted."""
        with self._state.read() as tx:
            return store.names(tx)

    def snapshot_folder(self, snapshot: str) -> Path:
        """The read-only folder of a snapshot, which is the import root of the package.

        Raises:
            NotFound: There is no such snapshot.
            Corrupted: Its stored bytes have changed.
        """
        return self._snapshots.folder(snapshot)

    def lock(self, snapshot: str) -> Path | None:
        """The snapshot's lock file; None when the project has none, and runs in the platform's environment."""
        lock = self.snapshot_folder(snapshot) / LOCK_NAME
        return lock if lock.is_file() else None

    def python(self, applied: AppliedContract) -> Path:
        """The interpreter that runs the contract's package; its environment is built when it is not there yet.

        Raises:
            JobFailed: The environment of the lock cannot be built.
        """
        return self._python(applied.snapshot)

    def _planned(self, content: bytes) -> AppliedContract:
        """The upload checked, stored and described; its revision is not known yet."""
        upload = parse_upload(content)
        contract = upload.parsed.contract
        snapshot = self._snapshots.keep(upload.files)
        description = self._description(contract, snapshot)
        policy.check_description(contract, description, upload.parsed.problems)
        upload.parsed.problems.raise_any()
        return _planned(upload, snapshot, description)

    def _description(self, contract: Contract, snapshot: str) -> dict[str, object]:
        """What the package declares; taken from the live revision when it names the same of the same code."""
        with self._state.read() as tx:
            live = store.current(tx, contract.model)
        if live and live.snapshot == snapshot and _named(live.contract) == _named(contract):
            return live.description
        log = self._settings.folder("logs") / f"describe-{contract.model}.log"
        folder = self.snapshot_folder(snapshot)
        named = [dataclasses.asdict(reference) for reference in policy.references(contract)]
        with Job(
            "relevo.contract.child", python=self._python(snapshot), package=folder, log=log, environment={}
        ) as job:
            return job.call("describe", package=contract.package, references=named, features=contract.features)

    def _python(self, snapshot: str) -> Path:
        return python_for(self.lock(snapshot), self._settings)

    def _change(self, tx: Transaction, planned: AppliedContract) -> Change:
        check_free(tx, planned.model)
        live = store.current(tx, planned.model)
        if live is not None and live.contract.imported is not None:
            raise Conflict(
                f"{planned.model} is imported from models:/{live.contract.imported.name}, so no contract can have its "
                "name; choose another."
            )
        is_same = live is not None and live.snapshot == planned.snapshot
        live_files = self._snapshots.digests(live.snapshot) if live and not is_same else {}
        new_files = {} if is_same else self._snapshots.digests(planned.snapshot)
        return policy.change(live, planned, live_files=live_files, new_files=new_files)

    def _record(self, tx: Transaction, applied: AppliedContract, change: Change, actor: Principal, reason: str) -> None:
        facts = {
            "revision": applied.revision,
            "snapshot": applied.snapshot,
            "git_commit": applied.git_commit,
            "differences": [str(difference) for difference in change.differences],
            "code": list(change.code),
        }
        evidence = digest({"text": applied.text, "snapshot": applied.snapshot})
        self._ledger.append(
            tx,
            actor=actor,
            action="contract applied",
            subject=applied.model,
            reason=reason,
            evidence=evidence,
            facts=facts,
        )

    def _required(self, tx: Transaction, model: str) -> AppliedContract:
        applied = store.current(tx, model)
        if applied is None:
            near = nearest(model, store.names(tx))
            raise NotFound(f"There is no model {model!r}" + (f"; did you mean {near!r}?" if near else "."))
        return applied


def _planned(upload: Upload, snapshot: str, description: dict[str, object]) -> AppliedContract:
    return AppliedContract(
        model=upload.parsed.contract.model,
        revision=0,
        contract=upload.parsed.contract,
        text=upload.text,
        snapshot=snapshot,
        description=description,
        git_commit=upload.git_commit,
        applied_by="",
    )


def _named(contract: Contract) -> tuple[object, ...]:
    """All that a description depends on, besides the code."""
    return (contract.package, contract.features, tuple(policy.references(contract)))
