"""Use cases of features in the control plane: which views a model has, and keeping them up to date for serving."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from relevo.contract.model import AppliedContract
from relevo.contract.service import ContractService
from relevo.errors import JobFailed
from relevo.features.model import FeatureView
from relevo.platform.clock import EventClock
from relevo.platform.encoding import digest, parse, to_json
from relevo.platform.jobs import Job
from relevo.platform.settings import Settings
from relevo.platform.state import State


@dataclass(frozen=True, slots=True)
class Freshness:
    """What materialising did: rows read, and the event time through which lookups are up to date."""

    rows: int
    through: datetime


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
        self._children: dict[str, tuple[str, Job]] = {}
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def views(self, model: str) -> list[FeatureView]:
        """The views that the model's current contract declares.

        Raises:
            NotFound: No contract of that name is applied.
        """
        return views_of(self._contracts.current(model))

    def materialise(self, model: str, until: datetime | None = None) -> Freshness:
        """Bring the online store up to date as of ``until`` in event time; None: the endpoint's now. Idempotent.

        The child stays for the next call. It is started anew when the contract has changed, or when it has died.

        Raises:
            NotFound: No contract of that name is applied.
            JobFailed: A loader failed; the store stays as it was.
        """
        until = until or self._clock.now(model)
        with self._locks[model]:
            applied = self._contracts.current(model)
            if not views_of(applied):
                return Freshness(0, until)
            job = self._child(applied)
            try:
                return _materialise(job, until)
            except JobFailed:
                if job.is_alive:
                    raise
            # It was killed between or during calls; the store is as the last finished call left it.
            return _materialise(self._child(applied), until)

    def close(self) -> None:
        """End every child."""
        for model in list(self._children):
            with self._locks[model]:
                self._end(model)

    def _child(self, applied: AppliedContract) -> Job:
        origin = _origin(applied)
        known = self._children.get(applied.model)
        if known is not None and known[0] == origin and known[1].is_alive:
            return known[1]
        self._end(applied.model)
        package = self._contracts.snapshot_folder(applied.snapshot)
        job = Job(
            "relevo.features.child",
            python=self._contracts.python(applied),
            package=package,
            log=self._settings.folder("logs") / f"features-{applied.model}.log",
            environment={"POLARS_MAX_THREADS": "1"},  # a call moves tens of rows: waking threads costs more
        )
        try:
            job.call(
                "open",
                model=applied.model,
                views=views_of(applied),
                sources=applied.contract.sources,
                package=str(package),
                store=str(self._settings.root / "online.db"),
                origin=origin,
            )
        except BaseException:
            job.close()
            raise
        self._children[applied.model] = (origin, job)
        return job

    def _end(self, model: str) -> None:
        known = self._children.pop(model, None)
        if known is not None:
            known[1].close()


def views_of(applied: AppliedContract) -> list[FeatureView]:
    """The views in the description of an applied contract."""
    return [parse(FeatureView, view) for view in cast(list[Any], applied.description.get("views", []))]


def _origin(applied: AppliedContract) -> str:
    """What the content of the online store depends on: the code, and what the contract says of sources and views."""
    return digest([applied.snapshot, to_json(applied.contract.sources), applied.description.get("views", [])])


def _materialise(job: Job, until: datetime) -> Freshness:
    return parse(Freshness, job.call("materialise", until=until))
