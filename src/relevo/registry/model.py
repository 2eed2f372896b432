"""Model versions and sealed bundles."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from urllib.parse import quote

from relevo.features.expressions import Transform
from relevo.features.model import FeatureView
from relevo.runtimes.model import Signature


class Stage(StrEnum):
    """Where a version stands in its life."""

    CANDIDATE = "candidate"
    STAGING = "staging"
    PRODUCTION = "production"
    ARCHIVED = "archived"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class BundleFile:
    """A file of a bundle: its path inside it, its SHA-256 and its size."""

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle holds. Its canonical JSON is signed; its SHA-256 is the bundle's digest."""

    model: str
    version: int
    run_id: str
    runtime: str
    signature: Signature
    views: tuple[FeatureView, ...]  # fill the inputs that the caller does not send
    files: tuple[BundleFile, ...]
    facts: dict[str, object]  # pins, environment, agreement: plain JSON
    transforms: tuple[Transform, ...] = ()  # compute inputs that the caller does not send, each after what it reads


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A sealed version. ``number`` is MLflow's."""

    model: str
    number: int
    stage: Stage
    bundle: str
    run_id: str
    workflow_id: str
    created_at: datetime
    as_of: datetime
    facts: dict[str, object]  # metrics, dataset pins, snapshot, git commit, environment, training window

    @property
    def label(self) -> str:
        """``model/number``."""
        return f"{self.model}/{self.number}"

    @property
    def mlflow_page(self) -> str:
        """Address of its page in MLflow's interface, from which its run is one step away."""
        source = str(self.facts.get("imported_from") or f"models:/{self.model}/{self.number}")
        name, _, number = source.removeprefix("models:/").rpartition("/")
        return f"/mlflow/#/models/{quote(name)}/versions/{number}"
