"""What is said of datasets: each in a line, and one version with where it comes from and what refers to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from relevo.contract.model import AppliedContract
from relevo.contract.service import ContractService
from relevo.datasets.model import DatasetVersion
from relevo.datasets.naming import find
from relevo.datasets.service import Datasets
from relevo.errors import NotFound


@dataclass(frozen=True, slots=True)
class Provenance:
    """The contract and the code that a version was loaded by. None: no revision with this code is on record."""

    revision: int | None
    applied_by: str | None
    git_commit: str | None


@dataclass(frozen=True, slots=True)
class DatasetLine:
    """A dataset at a glance: its newest version."""

    model: str
    source: str
    version: int
    versions: int
    rows: int
    columns: int
    digest: str
    known_through: datetime | None
    created_at: datetime
    failed_checks: int
    quarantined: int
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class Reference:
    """A version of the model that was trained on a version of a dataset: its run in MLflow, and its workflow."""

    model_version: int
    stage: str
    run_id: str
    workflow_id: str


@dataclass(frozen=True, slots=True)
class VersionView:
    """One version of a dataset in full. ``before`` is the version that was loaded before it."""

    version: DatasetVersion
    before: int | None
    newest: int
    names: tuple[str, ...]  # the columns that name a row
    provenance: Provenance
    references: tuple[Reference, ...]


class DatasetOverview:
    """Reads across contracts and datasets; thread-safe.

    Args:
        contracts: Whose datasets, and what code loaded them.
        datasets: The recorded versions.
    """

    def __init__(self, contracts: ContractService, datasets: Datasets) -> None:
        self._contracts = contracts
        self._datasets = datasets

    def lines(self, model: str | None = None) -> list[DatasetLine]:
        """Each dataset of the models in use (or of one), by model and source.

        Raises:
            NotFound: There is no such model.
        """
        if model is not None:
            self._contracts.current(model)
        found = []
        for each in self._contracts.models() if model is None else [model]:
            revisions = self._contracts.revisions(each)
            by_source: dict[str, list[DatasetVersion]] = {}
            for version in self._datasets.versions(each):
                by_source.setdefault(version.source, []).append(version)
            found += [_line(versions, revisions) for versions in by_source.values()]
        return found

    def find(self, name: str) -> tuple[str, str]:
        """Model and source of ``MODEL/SOURCE``, or of ``SOURCE`` where one model alone has it.

        Raises:
            NotFound: There is no such dataset; the hint names the nearest.
            Invalid: Several models have one of that name.
        """
        return find(name, ((line.model, line.source) for line in self.lines()))

    def history(self, model: str, source: str) -> list[DatasetVersion]:
        """Every recorded version, the newest first.

        Raises:
            NotFound: There is no such dataset.
        """
        found = self._datasets.versions(model, source)
        if not found:
            self.find(f"{model}/{source}")  # says which there are
            raise NotFound(f"There is no dataset {model}/{source}.")
        return found

    def version(self, model: str, source: str, number: int | None = None) -> DatasetVersion:
        """One recorded version; the newest without a number.

        Raises:
            NotFound: There is no such dataset or version.
        """
        history = self.history(model, source)
        return history[0] if number is None else self._datasets.version(model, source, number)

    def pair(
        self, model: str, source: str, before: int | None = None, after: int | None = None
    ) -> tuple[DatasetVersion, DatasetVersion]:
        """Two versions to compare: without ``after`` the newest, without ``before`` the one before that.

        Raises:
            NotFound: There is no such dataset or version, or it has one version only.
        """
        history = self.history(model, source)
        later = self.version(model, source, after)
        if before is not None:
            return self.version(model, source, before), later
        earlier = next((one for one in history if one.version < later.version), None)
        if earlier is None:
            raise _alone(history, later)
        return earlier, later

    def view(self, version: DatasetVersion, references: Sequence[Reference]) -> VersionView:
        """A version with all that is known of it."""
        history = self._datasets.versions(version.model, version.source)
        earlier = (one.version for one in history if one.version < version.version)
        revisions = self._contracts.revisions(version.model)
        return VersionView(
            version=version,
            before=next(earlier, None),
            newest=history[0].version,
            names=self.names(version),
            provenance=_provenance(version, revisions),
            references=tuple(references),
        )

    def names(self, version: DatasetVersion) -> tuple[str, ...]:
        """The columns that name a row, by the contract that the version was loaded by; none when it is not known."""
        applied = _applied(version, self._contracts.revisions(version.model))
        sources = applied.contract.sources if applied is not None else ()
        source = next((one for one in sources if one.name == version.source), None)
        if source is None:
            return ()
        return tuple(dict.fromkeys([*([source.event_time] if source.event_time else []), *source.key]))


def require_rows(version: DatasetVersion) -> DatasetVersion:
    """The version, when its rows are still there.

    Raises:
        NotFound: They were collected; its record alone is left.
    """
    if version.collected_at is not None:
        raise NotFound(
            f"The rows of {version.model}/{version.source} version {version.version} were collected at "
            f"{version.collected_at:%Y-%m-%d %H:%M} UTC, since nothing refers to them; its record is kept.",
            hint="How long versions are kept is `keep` of the source in the contract.",
        )
    return version


def _alone(history: Sequence[DatasetVersion], first: DatasetVersion) -> NotFound:
    """Why there is nothing to compare the first version with; ``history`` newest first."""
    name, newest = f"{first.model}/{first.source}", history[0].version
    if newest == first.version:
        return NotFound(
            f"{name} has one version only, {newest}: there is none to compare it with.",
            hint=f"A load that finds other rows makes the next: relevo train {first.model}, or relevo apply.",
        )
    return NotFound(
        f"{name} has no version before {first.version}.",
        hint=f"Name two of its versions, {first.version} to {newest}: relevo datasets diff {name} BEFORE AFTER",
    )


def _line(versions: Sequence[DatasetVersion], revisions: Sequence[AppliedContract]) -> DatasetLine:
    newest = versions[0]
    return DatasetLine(
        model=newest.model,
        source=newest.source,
        version=newest.version,
        versions=len(versions),
        rows=newest.rows,
        columns=len(newest.columns),
        digest=newest.digest,
        known_through=newest.known_through,
        created_at=newest.created_at,
        failed_checks=sum(check.failed > 0 for check in newest.checks),
        quarantined=newest.quarantined,
        provenance=_provenance(newest, revisions),
    )


def _applied(version: DatasetVersion, revisions: Sequence[AppliedContract]) -> AppliedContract | None:
    """The last revision with the version's code that was applied before it was loaded; ``revisions`` newest first."""
    with_code = [one for one in revisions if one.snapshot == version.snapshot]
    by_then = (one for one in with_code if one.applied_at is None or one.applied_at <= version.created_at)
    return next(by_then, with_code[-1] if with_code else None)


def _provenance(version: DatasetVersion, revisions: Sequence[AppliedContract]) -> Provenance:
    applied = _applied(version, revisions)
    if applied is None:
        return Provenance(None, None, None)
    return Provenance(applied.revision, applied.applied_by, applied.git_commit)
