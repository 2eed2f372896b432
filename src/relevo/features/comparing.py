"""Starts the child processes that recompute what a version was served, each with the code of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from relevo.contract.model import AppliedContract
from relevo.contract.service import ContractService
from relevo.datasets.connections import variables
from relevo.features.model import FeatureView, view_id
from relevo.features.parity import FeatureParity
from relevo.features.service import origin_of, views_of
from relevo.platform.encoding import parse
from relevo.platform.jobs import Job
from relevo.platform.settings import Settings

_ENTRY = "relevo.features.parity_child"


class Comparing:
    """Compares logged feature values with what the sources give. Thread-safe.

    Args:
        contracts: Give the revisions of contracts and their code.
        settings: Where the online store and the logs are.
    """

    def __init__(self, contracts: ContractService, settings: Settings) -> None:
        self._contracts = contracts
        self._settings = settings

    def compare(
        self,
        model: str,
        revision: int,
        views: Sequence[FeatureView],
        rows: Path,
        on_progress: Callable[[str, float | None], None] | None = None,
    ) -> list[FeatureParity]:
        """How the features of ``views`` compare, with the cause of each difference.

        Args:
            model: Whose.
            revision: Of the contract that the version was trained by: its sources and its code are asked.
            views: Those of the version's manifest.
            rows: A Parquet file of logged rows as ``parity`` describes them; a folder beside it takes further files.
            on_progress: Told what the child does.

        Raises:
            NotFound: There is no such revision.
            JobFailed: A loader failed, or gives what does not fit any more.
        """
        applied = self._contracts.revision(model, revision)
        with self._job(applied, views) as job:
            asked = self._arguments(applied, views, rows)
            found = job.call("compare", on_progress, store=str(self._settings.online_store), **asked)
            if any(feature["different"] for feature in found["features"]):
                other = self._by_other_code(applied, views, rows, found["origins"], on_progress)
                found = job.call("explain", on_progress, other=other)
        return [parse(FeatureParity, feature) for feature in found["features"]]

    def _by_other_code(
        self,
        applied: AppliedContract,
        views: Sequence[FeatureView],
        rows: Path,
        origins: Mapping[str, str],
        on_progress: Callable[[str, float | None], None] | None,
    ) -> dict[str, str]:
        """By view that other code fills by now, the file with its values by that code."""
        foreign = {name: origin for name, origin in origins.items() if origin != origin_of(applied)}
        files: dict[str, str] = {}
        for origin in sorted(set(foreign.values())):
            other = self._revision_of(applied.model, origin)
            wanted = {view_id(applied.model, view) for view in views if foreign.get(view.name) == origin}
            known = [] if other is None else [v for v in views_of(other) if view_id(other.model, v) in wanted]
            if other is None or not known:
                continue
            into = rows.with_name(f"{rows.stem}-{origin[:16]}.parquet")
            with self._job(other, known) as job:
                job.call("values", on_progress, into=str(into), **self._arguments(other, known, rows))
            files |= {view.name: str(into) for view in known}
        return files

    def _revision_of(self, model: str, origin: str) -> AppliedContract | None:
        """The newest contract revision whose code and sources have that digest."""
        for number in range(self._contracts.current(model).revision, 0, -1):
            applied = self._contracts.revision(model, number)
            if origin_of(applied) == origin:
                return applied
        return None

    def _arguments(self, applied: AppliedContract, views: Sequence[FeatureView], rows: Path) -> dict[str, Any]:
        return {
            "rows": str(rows),
            "model": applied.model,
            "views": views,
            "sources": applied.contract.sources,
            "package": str(self._contracts.snapshot_folder(applied.snapshot)),
        }

    def _job(self, applied: AppliedContract, views: Sequence[FeatureView]) -> Job:
        used = {view.source for view in views}
        return Job(
            _ENTRY,
            python=self._contracts.python(applied),
            package=self._contracts.snapshot_folder(applied.snapshot),
            log=self._settings.folder("logs") / f"parity-{applied.model}.log",
            environment=variables((source for source in applied.contract.sources if source.name in used), os.environ),
        )
