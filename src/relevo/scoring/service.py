"""Use cases of bulk scoring in the control plane: which version answers, and what its feature views look up.

The sources are loaded here, since their loaders, connections and code are this side's. They are left in a folder of the
home, from which the command takes them: nothing is written where a caller says.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from relevo.contract.service import ContractService
from relevo.datasets.connections import variables
from relevo.errors import Invalid, NotFound
from relevo.features.model import FeatureView
from relevo.platform.clock import EventClock
from relevo.platform.encoding import to_json
from relevo.platform.jobs import Job
from relevo.platform.settings import Settings
from relevo.registry.bundles import read_manifest
from relevo.registry.model import ModelVersion
from relevo.registry.service import Registry
from relevo.scoring.model import Plan, Sources
from relevo.serving.service import Serving

_ENTRY = "relevo.scoring.sources_child"
#: Sources that no command has taken for so long are of one that died.
_LEFT_AFTER_SECONDS = 24 * 3600.0


class Scoring:
    """Plans runs of bulk scoring. Thread-safe.

    Args:
        settings: Where sources are left for the command.
        contracts: Give the code that loads them.
        registry: Knows the versions.
        serving: Knows the champion.
        clock: Event time of the endpoints.
    """

    def __init__(
        self,
        settings: Settings,
        contracts: ContractService,
        registry: Registry,
        serving: Serving,
        clock: EventClock,
    ) -> None:
        self._settings = settings
        self._contracts = contracts
        self._registry = registry
        self._serving = serving
        self._clock = clock

    def plan(self, model: str, version: int | None) -> Plan:
        """The version that answers: the champion, or the one that is named.

        Raises:
            NotFound: There is no such model or version, or none is named and none is live.
        """
        self._contracts.current(model)
        if version is None:
            version = self.champion(model)
        if version is None:
            hint = "Name a sealed one: --version N. See them with: relevo versions " + model
            raise NotFound(f"{model} is not live, so no version answers by itself.", hint=hint)
        found = self._registry.version(model, version)
        return Plan(model, found.number, found.bundle, self._clock.now(model))

    def champion(self, model: str) -> int | None:
        """The version in production; None when there is none."""
        route = self._serving.current_route(model)
        return None if route is None else route.champion

    def sources(self, model: str, version: int, views: Sequence[str], until: datetime) -> Sources:
        """Load what these views of the version look up, as known at ``until`` in event time.

        They are the rows that the online store is filled with: by the code and the contract of the version.

        Raises:
            NotFound: There is no such version.
            Invalid: The version has no such view.
            JobFailed: A loader failed.
        """
        found = self._registry.version(model, version)
        wanted = self._views(found, views)
        applied = self._contracts.revision(model, int(str(found.facts["contract_revision"])))
        used = {view.source for view in wanted}
        declared = [source for source in applied.contract.sources if source.name in used]
        package = self._contracts.snapshot_folder(applied.snapshot)
        folder = self._folder()
        try:
            with Job(
                _ENTRY,
                python=self._contracts.python(applied),
                package=package,
                log=self._settings.folder("logs") / f"scoring-{model}.log",
                environment=variables(declared, os.environ),
            ) as job:
                job.call("load", sources=declared, package=str(package), until=until, into=str(folder))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        listed: list[dict[str, Any]] = [to_json(source) for source in declared]
        return Sources(str(folder), tuple(listed))

    def _views(self, version: ModelVersion, names: Sequence[str]) -> list[FeatureView]:
        views = {view.name: view for view in read_manifest(self._registry.fetch(version.bundle)).views}
        for name in names:
            if name not in views:
                known = ", ".join(views) or "none"
                raise Invalid(f"{version.label} has no feature view {name!r}; it has {known}.", field="views")
        return [views[name] for name in names]

    def _folder(self) -> Path:
        """A new folder for sources; those that nobody took are deleted."""
        root = self._settings.folder("scoring")
        for left in root.iterdir():
            if time.time() - left.stat().st_mtime > _LEFT_AFTER_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
        return self._settings.folder("scoring", uuid.uuid4().hex)
