"""Training sets made again from their pins: the same rows, months later, or the words why not.

The rows of a training set are not kept: they follow from what the version's facts pin (versions of the datasets,
definitions of the views, the contract's revision, a time), all of which is kept as long as the version is.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from relevo.contract.service import ContractService
from relevo.errors import Invalid
from relevo.platform.encoding import parse
from relevo.platform.jobs import Job
from relevo.platform.settings import Settings
from relevo.registry.bundles import read_manifest
from relevo.registry.model import ModelVersion
from relevo.registry.service import Registry
from relevo.training.folder import RunFolder
from relevo.training.model import PinnedDataset, Run

_ENTRY = "relevo.training.child"
_NEEDED = ("as_of", "contract_revision", "snapshot", "datasets", "training_set")


@dataclass(frozen=True, slots=True)
class Pins:
    """What a version's training set was made of. ``views`` gives the digest of each view's definition by its name."""

    model: str
    version: int
    as_of: datetime
    contract_revision: int
    snapshot: str
    datasets: dict[str, PinnedDataset]
    views: dict[str, str]
    training_set: str  # digest over names, types and values of its rows
    rows: dict[str, int]  # fitted, held_out, unlabelled


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What came of making a training set again; ``changed`` names the datasets whose content is not the pinned one."""

    model: str
    version: int
    pinned: str
    rebuilt: str
    is_same: bool
    rows: int
    changed: tuple[str, ...]


class TrainingSets:
    """The pinned training sets of sealed versions. Thread-safe.

    Args:
        settings: Where the tables are, and where a child may write for a moment.
        contracts: Give the revision and the code of a version.
        registry: Knows the pins.
    """

    def __init__(self, settings: Settings, contracts: ContractService, registry: Registry) -> None:
        self._settings = settings
        self._contracts = contracts
        self._registry = registry

    def pins(self, model: str, number: int) -> Pins:
        """What the training set of a version was made of.

        Raises:
            NotFound: There is no such version.
            Invalid: It was not trained here, so nothing is pinned.
        """
        return _pins(self._registry.version(model, number))

    def verify(self, model: str, number: int) -> Rebuilt:
        """Make the training set again in a child, from the pinned tables and code, and compare the digests.

        Raises:
            NotFound: There is no such version.
            Invalid: It was not trained here.
            JobFailed: A pinned dataset version or the code cannot be read any more.
        """
        version = self._registry.version(model, number)
        pins = _pins(version)
        applied = self._contracts.revision(model, pins.contract_revision)
        package = self._contracts.snapshot_folder(pins.snapshot)
        manifest = read_manifest(self._registry.fetch(version.bundle))
        run = Run(
            id=f"rebuild-{version.label}",
            workflow_id="",
            model=model,
            revision=pins.contract_revision,
            as_of=pins.as_of,
            contract=applied.contract,
            views=manifest.views,
            transforms=manifest.transforms,
            package=str(package),
            snapshot=pins.snapshot,
            tables=str(self._settings.folder("tables", model)),
        )
        with tempfile.TemporaryDirectory(dir=self._settings.folder("jobs"), prefix="rebuild-") as scratch:
            folder = RunFolder(Path(scratch))
            folder.write("run", run)
            with Job(
                _ENTRY,
                python=self._contracts.python(applied),
                package=package,
                log=self._settings.folder("logs") / f"training-set-{model}.log",
                environment={"PYTHONHASHSEED": "0"},
            ) as job:
                found = job.call("rebuild", run=scratch, pinned=pins.datasets, digest=pins.training_set)
        return Rebuilt(
            model=model,
            version=number,
            pinned=pins.training_set,
            rebuilt=found["digest"],
            is_same=found["digest"] == pins.training_set,
            rows=found["rows"],
            changed=tuple(found["changed"]),
        )


def _pins(version: ModelVersion) -> Pins:
    facts: Mapping[str, Any] = version.facts
    lacking = [name for name in _NEEDED if not facts.get(name)]
    if lacking:
        raise Invalid(
            f"Version {version.label} pins no training set: its facts have no {', '.join(lacking)}.",
            hint="Versions that were trained by Relevo have them.",
        )
    return parse(
        Pins,
        {
            "model": version.model,
            "version": version.number,
            "views": facts.get("views", {}),
            "rows": facts.get("rows", {}),
            **{name: facts[name] for name in _NEEDED},
        },
    )
