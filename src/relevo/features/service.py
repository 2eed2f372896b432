"""Use cases of features in the control plane: which views a model has, and keeping them up to date for serving."""

from __future__ import annotations

import logging
import os
import threading
from collections import defaultdict
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from relevo.contract.durations import format_duration
from relevo.contract.model import AppliedContract
from relevo.contract.service import ContractService
from relevo.datasets.connections import variables
from relevo.errors import JobFailed
from relevo.features.model import FeatureView, view_id
from relevo.features.online import OnlineStore, Progress
from relevo.platform.clock import EventClock
from relevo.platform.encoding import digest, parse, to_json
from relevo.platform.jobs import Job
from relevo.platform.settings import Settings
from relevo.platform.state import State

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Freshness:
    """What materialising did: rows read, and the event time through which lookups are up to date."""

    rows: int
    through: datetime


@dataclass(frozen=True, slots=True)
class ViewFreshness:
    """How old the newest known row of a view is, at an event time; without any row it is older than any limit."""

    view: FeatureView
    newest_at: datetime | None
    now: datetime

    @property
    def age(self) -> timedelta | None:
        """The age of the newest row; None when there is none."""
        return None if self.newest_at is None else max(timedelta(0), self.now - self.newest_at)

    @property
    def is_fresh(self) -> bool | None:
        """Whether the limit is kept; None without a limit."""
        if self.view.fresh_within is None:
            return None
        return self.age is not None and self.age <= self.view.fresh_within

    def __str__(self) -> str:
        newest = "no row yet" if self.newest_at is None else f"newest row of {self.newest_at:%Y-%m-%d %H:%M}"
        limit = self.view.fresh_within
        return f"{self.view.name}, {newest}" + ("" if limit is None else f", allowed age {format_duration(limit)}")


#: How long a view that nothing declares any more is kept in the online store.
UNUSED_FOR = timedelta(days=7)


class FeatureService:
    """Views of models, and the child process of each model that materialises them. Thread-safe.

    Args:
        state: The state store.
        contracts: Gives the applied contracts and the folders of their code.
        settings: Where the online store and the logs are.
        clock: Event time of the endpoints.
    """

    def __init__(self, state: State, contracts: ContractService, settings: Settings, clock: EventClock) -> None:
        self._state = state
        self._contracts = contracts
        self._settings = settings
        self._clock = clock
        self._children: dict[tuple[str, int], tuple[str, Job]] = {}  # by model and contract revision
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def views(self, model: str) -> list[FeatureView]:
        """The views that the model's current contract declares.

        Raises:
            NotFound: No contract of that name is applied.
        """
        return views_of(self._contracts.current(model))

    def materialise(
        self, model: str, until: datetime | None = None, *, live_revisions: Collection[int] = ()
    ) -> Freshness:
        """Bring the online store up to date as of ``until`` in event time; None: the endpoint's now. Idempotent.

        A child stays for the next call. It is started anew when the contract has changed, or when it has died.

        Args:
            model: Whose views.
            until: Event time.
            live_revisions: Contract revisions of versions that take traffic or may have to. Their views come first,
                each by the code of the newest of them that declares it; views that only the current contract declares
                follow, and while no version of it is live, their failure is left to its release to tell.

        Raises:
            NotFound: No contract of that name is applied.
            JobFailed: A loader failed; the store stays as it was.
        """
        until = until or self._clock.now(model)
        with self._locks[model]:
            current = self._contracts.current(model)
            live = [self._contracts.revision(model, n) for n in sorted(live_revisions, reverse=True)]
            written, wanted, known = 0, set(), set[str]()
            for applied in (*live, *([] if current.revision in live_revisions else [current])):
                views = [view for view in views_of(applied) if view_id(model, view) not in known]
                if views:
                    known |= {view_id(model, view) for view in views}
                    wanted.add((model, applied.revision))
                    written += self._rows(applied, views, until, may_fail=bool(live) and applied not in live)
            for key in [key for key in self._children if key[0] == model and key not in wanted]:
                self._end(key)
        return Freshness(written, until)

    def fills(self, model: str) -> dict[str, Progress]:
        """How far the online store is filled for the model, by view id."""
        with closing(OnlineStore(self._settings.online_store)) as online:
            return online.progress_of(model)

    def are_filled(self, model: str, views: Collection[FeatureView]) -> bool:
        """Whether the online store can answer for all of these views."""
        fills = self.fills(model) if views else {}
        return all(view_id(model, view) in fills for view in views)

    def freshness(self, model: str, revisions: Collection[int]) -> list[ViewFreshness]:
        """The views with a freshness limit that these contract revisions declare, as far as they are filled."""
        views = {
            view_id(model, view): view
            for number in sorted(revisions)
            for view in views_of(self._contracts.revision(model, number))
            if view.fresh_within is not None
        }
        if not views:
            return []
        fills, now = self.fills(model), self._clock.now(model)
        return [ViewFreshness(view, fills[key].newest_at, now) for key, view in views.items() if key in fills]

    def collect(self, model: str, live_revisions: Collection[int], now: datetime) -> list[str]:
        """Delete from the online store the views that nothing declares any more; gives their ids.

        Those are views of no live revision and not of the current contract, which nobody has filled for a week: a
        release that is under way, or is rolled back soon, finds its views where they were.

        Args:
            model: Whose views.
            live_revisions: As in ``materialise``.
            now: Wall time.
        """
        with self._locks[model], closing(OnlineStore(self._settings.online_store)) as online:
            declared = [self._contracts.current(model), *(self._contracts.revision(model, n) for n in live_revisions)]
            used = {view_id(model, view) for applied in declared for view in views_of(applied)}
            old = [
                view
                for view, progress in online.progress_of(model).items()
                if view not in used and now - progress.recorded_at > UNUSED_FOR
            ]
            if old:
                online.forget(model, old)
        return old

    def close(self) -> None:
        """End every child."""
        for key in list(self._children):
            with self._locks[key[0]]:
                self._end(key)

    def _rows(self, applied: AppliedContract, views: list[FeatureView], until: datetime, *, may_fail: bool) -> int:
        """Rows read for these views; with ``may_fail`` a failure is only logged."""
        try:
            return self._advance(applied, views, until).rows
        except JobFailed as error:
            if not may_fail:
                raise
            logger.warning("features of %s, revision %d: %s", applied.model, applied.revision, error)
            return 0

    def _advance(self, applied: AppliedContract, views: list[FeatureView], until: datetime) -> Freshness:
        job = self._child(applied, views)
        try:
            return _materialise(job, until)
        except JobFailed:
            if job.is_alive:
                raise
        # It was killed between or during calls; the store is as the last finished call left it.
        return _materialise(self._child(applied, views), until)

    def _child(self, applied: AppliedContract, views: list[FeatureView]) -> Job:
        key, origin = (applied.model, applied.revision), origin_of(applied)
        known = self._children.get(key)
        if known is not None and known[0] == origin and known[1].is_alive:
            return known[1]
        self._end(key)
        used = {view.source for view in views}
        package = self._contracts.snapshot_folder(applied.snapshot)
        job = Job(
            "relevo.features.child",
            python=self._contracts.python(applied),
            package=package,
            log=self._settings.folder("logs") / f"features-{applied.model}.log",
            environment={
                "POLARS_MAX_THREADS": "1",  # a call moves tens of rows: waking threads costs more
                **variables((source for source in applied.contract.sources if source.name in used), os.environ),
            },
        )
        try:
            job.call(
                "open",
                model=applied.model,
                views=views,
                sources=applied.contract.sources,
                package=str(package),
                store=str(self._settings.online_store),
                origin=origin,
            )
        except BaseException:
            job.close()
            raise
        self._children[key] = (origin, job)
        return job

    def _end(self, key: tuple[str, int]) -> None:
        known = self._children.pop(key, None)
        if known is not None:
            known[1].close()


def views_of(applied: AppliedContract) -> list[FeatureView]:
    """The views in the description of an applied contract."""
    return [parse(FeatureView, view) for view in cast(list[Any], applied.description.get("views", []))]


def origin_of(applied: AppliedContract) -> str:
    """What the content of the online store depends on: the code, and what the contract says of sources and views."""
    return digest([applied.snapshot, to_json(applied.contract.sources), applied.description.get("views", [])])


def _materialise(job: Job, until: datetime) -> Freshness:
    return parse(Freshness, job.call("materialise", until=until))
