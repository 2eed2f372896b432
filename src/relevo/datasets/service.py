"""Use cases of datasets in the control plane: remember what a child loaded, and list it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from relevo.datasets import store
from relevo.datasets.model import DatasetVersion, Hold, LoadedDataset
from relevo.errors import Conflict, NotFound, nearest
from relevo.platform.clock import utc_now
from relevo.platform.state import State, Transaction


class Datasets:
    """Which versions of which source there are, from which code.

    Args:
        state: The state store.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    def record(
        self,
        tx: Transaction,
        model: str,
        loaded: LoadedDataset,
        *,
        snapshot: str,
        workflow_id: str,
        created_at: datetime,
    ) -> DatasetVersion:
        """Remember a loaded version. Idempotent.

        A version that is known already keeps its first record, except for what the last load found of it: its checks,
        what was quarantined, and what the rows were read by.

        Raises:
            Conflict: The version is known with other content; the table was written by something else.
        """
        known = store.find(tx, model, loaded.name, loaded.version)
        if known is not None:
            if known.digest != loaded.digest:
                raise Conflict(
                    f"dataset {model}/{loaded.name} version {loaded.version} is recorded with content "
                    f"{known.digest[:12]}, got {loaded.digest[:12]}; another writer has changed the table"
                )
            found = replace(
                known,
                checks=loaded.checks,
                quarantined=loaded.quarantined,
                quarantine_version=loaded.quarantine_version,
                origin=loaded.origin,
            )
            if found != known:
                store.update_last_load(tx, found)
            return found
        version = DatasetVersion(
            model=model,
            source=loaded.name,
            version=loaded.version,
            digest=loaded.digest,
            rows=loaded.rows,
            columns=loaded.columns,
            known_through=loaded.known_through,
            snapshot=snapshot,
            workflow_id=workflow_id,
            created_at=created_at,
            checks=loaded.checks,
            changes=loaded.changes,
            mode=loaded.mode,
            quarantined=loaded.quarantined,
            quarantine_version=loaded.quarantine_version,
            origin=loaded.origin,
        )
        store.insert(tx, version)
        return version

    def hold(self, tx: Transaction, model: str, sources: Iterable[str], *, holder: str) -> dict[str, DatasetVersion]:
        """The last version of each source that has one, held back from being collected, with every later one.

        So a run has what it finds until it lets go. Idempotent for one holder, who then holds from what is last now.

        Args:
            tx: The transaction that holds.
            model: Whose sources.
            sources: Their names.
            holder: Id of the workflow.
        """
        store.lock(tx, model)
        found = {}
        for source in sources:
            last = store.last_version(tx, model, source)
            store.insert_hold(tx, Hold(model, source, 0 if last is None else last.version, holder), utc_now())
            if last is not None:
                found[source] = last
        return found

    def let_go(self, tx: Transaction, holder: str) -> None:
        """What the holder held may be collected, as far as it is concerned. Idempotent."""
        store.delete_holds(tx, holder)

    def names(self) -> list[tuple[str, str]]:
        """Model and source of every dataset with a recorded version, sorted."""
        with self._state.read() as tx:
            return store.names(tx)

    def versions(self, model: str, source: str | None = None) -> list[DatasetVersion]:
        """Recorded versions of a model's sources (or of one), by source, newest first."""
        with self._state.read() as tx:
            return store.versions(tx, model, source)

    def version(self, model: str, source: str, number: int) -> DatasetVersion:
        """One recorded version.

        Raises:
            NotFound: It is not recorded.
        """
        with self._state.read() as tx:
            found = store.find(tx, model, source, number)
            if found is not None:
                return found
            known = store.versions(tx, model, None)
        near = nearest(source, {version.source for version in known})
        numbers = [str(version.version) for version in known if version.source == source]
        hint = f"known versions: {', '.join(numbers)}" if numbers else (f"did you mean {near!r}?" if near else None)
        raise NotFound(f"dataset {model}/{source} has no recorded version {number}", hint=hint)
