"""Collects what nothing refers to: old versions, first in the records, then their files; and what dead loads left."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from relevo.contract.model import Source
from relevo.datasets import store
from relevo.datasets.model import DatasetVersion, Hold, quarantine_of
from relevo.errors import RelevoError
from relevo.platform.state import State, Transaction

logger = logging.getLogger(__name__)

#: How old a file that no version has must be: no load runs so long, and one that runs holds its source anyway.
LEFT_FOR = timedelta(days=7)

#: A source and a version of it.
Pin = tuple[str, int]


class Retention:
    """Applies ``keep`` of the contract's sources. One collection at a time; loads may go on meanwhile.

    Never collected are: the last version of a source, what a run under way may use, and what ``references`` names.

    Args:
        state: The state store.
        tables: The root folder of every model's tables.
        references: The versions of a model's sources that must stay.
        is_over: Whether the workflow of that id has ended, so that what it still holds is let go.
    """

    def __init__(
        self,
        state: State,
        tables: Path,
        *,
        references: Callable[[str], Iterable[Pin]],
        is_over: Callable[[str], bool],
    ) -> None:
        self._state = state
        self._tables = tables
        self._references = references
        self._is_over = is_over

    def collect(self, model: str, sources: Sequence[Source], now: datetime) -> list[DatasetVersion]:
        """Collect what is due for a model, and give its versions. Idempotent; what a crash left undone is finished.

        A version stays in the records, marked ``collected_at``; from then on it is not read any more. Its files are
        deleted after that, so that whoever finds one in the records unmarked can read it. Files that belong to no
        version, since their load died before its commit, go after ``LEFT_FOR``, unless a run may be loading the source.

        Args:
            model: Whose datasets.
            sources: The sources of its contract. Versions of a source without ``keep``, or that is gone, stay.
            now: Wall time.
        """
        keep = {source.name: source.keep for source in sources if source.keep is not None}
        with self._state.transaction() as tx:
            store.lock(tx, model)
            # Holds first: a run that seals its version meanwhile is seen by its hold, if not yet by the version.
            held = [hold for hold in store.holds(tx, model) if not self._let_go(tx, hold)]
            pinned = set(self._references(model))
            found = due(store.versions(tx, model, None), keep, held, pinned, now)
            collected = [replace(version, collected_at=now) for version in found]
            for version in collected:
                store.update_collected(tx, version)
        self._remove_files(model, now)
        self._remove_left(model, {hold.source for hold in held}, now)
        if collected:
            logger.info("collected %d old versions of the datasets of %s", len(collected), model)
        return collected

    def _let_go(self, tx: Transaction, hold: Hold) -> bool:
        if not self._is_over(hold.holder):
            return False
        store.delete_holds(tx, hold.holder)
        return True

    def _remove_files(self, model: str, now: datetime) -> None:
        from relevo.datasets.tables import remove_versions  # delta-rs, which only this needs here

        for source, own in self._by_source(model).items():
            gone = [version for version in own if version.collected_at is not None]
            if all(version.removed_at is not None for version in gone):
                continue
            kept = {version.quarantine_version for version in own if version.collected_at is None}
            apart = {version.quarantine_version for version in gone} - kept
            try:
                remove_versions(self._tables / model / source, {version.version for version in gone})
                remove_versions(
                    self._tables / model / quarantine_of(source), {number for number in apart if number is not None}
                )
            except (RelevoError, OSError) as error:  # the files stay until the next collection; other sources go on
                logger.warning("old versions of %s/%s could not be removed: %s", model, source, error)
                continue
            with self._state.transaction() as tx:
                for version in gone:
                    if version.removed_at is None:
                        store.update_collected(tx, replace(version, removed_at=now))

    def _remove_left(self, model: str, held: Collection[str], now: datetime) -> None:
        """Delete what dead loads left in the model's tables, but for ``held`` sources: a run may be loading those.

        A run that begins meanwhile writes files that are too young to go.
        """
        from relevo.datasets.tables import remove_left  # delta-rs, which only this needs here

        for source, own in self._by_source(model).items():
            if source in held:
                continue
            apart = (version.quarantine_version for version in own if version.quarantine_version is not None)
            newest = {source: max(version.version for version in own), quarantine_of(source): max(apart, default=None)}
            for table, last in newest.items():
                if last is None:
                    continue
                try:
                    files = remove_left(self._tables / model / table, last, now - LEFT_FOR)
                except (RelevoError, OSError) as error:  # they stay until the next collection; other tables go on
                    logger.warning("what dead loads left of %s/%s could not be removed: %s", model, table, error)
                    continue
                if files:
                    logger.info("removed %d files of %s/%s that dead loads left", files, model, table)

    def _by_source(self, model: str) -> dict[str, list[DatasetVersion]]:
        found = defaultdict[str, list[DatasetVersion]](list)
        with self._state.read() as tx:
            for version in store.versions(tx, model, None):
                found[version.source].append(version)
        return found


def due(
    versions: Sequence[DatasetVersion],
    keep: Mapping[str, timedelta],
    held: Sequence[Hold],
    pinned: Collection[Pin],
    now: datetime,
) -> list[DatasetVersion]:
    """The versions that are to be collected: older than ``keep``, not the last of their source, and held by nothing."""
    last = {source: max(v.version for v in versions if v.source == source) for source in {v.source for v in versions}}
    first_held = {
        source: min((hold.version for hold in held if hold.source == source), default=None) for source in last
    }
    found = []
    for version in versions:
        kept_for, held_from = keep.get(version.source), first_held[version.source]
        is_held = held_from is not None and version.version >= held_from
        is_due = kept_for is not None and version.created_at + kept_for < now and version.collected_at is None
        is_free = not is_held and (version.source, version.version) not in pinned
        if is_due and is_free and version.version != last[version.source]:
            found.append(version)
    return found
