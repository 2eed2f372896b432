"""What a training run is given, and what a team's ``train`` function gets. Light to import; no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from relevo.contract.model import Contract, Scalar
from relevo.features.expressions import Transform
from relevo.features.model import FeatureView

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """The rows to fit on: what was known when asked, and what came of it. The holdout is not among them.

    Attributes:
        inputs: ``(n_rows, n_inputs)``, columns in the signature's order: the contract's inputs, the features, the
            transforms.
            Text has the category dtype; numbers, integers and booleans are float64 with NaN for null, as in serving.
        label: ``(n_rows,)``. Classification: the index of the class in ``classes``, int64, so 0 or 1 when there are
            two. Regression: float64.
        asked_at: ``(n_rows,)`` aware UTC, ascending; None for a model without event time.
        params: The contract's parameters.
        classes: The labels in words, in the order of their indices; empty for a regression.
    """

    inputs: pd.DataFrame
    label: pd.Series
    asked_at: pd.Series | None
    params: dict[str, Scalar]
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Champion:
    """The version that a challenger is compared with: its verified bundle in a local folder, and its interpreter."""

    version: int
    folder: str
    python: str


@dataclass(frozen=True, slots=True)
class PinnedDataset:
    """The version of a dataset that a training set was made of, and the digest of its content."""

    version: int
    digest: str
    rows: int


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that a child needs to know of a run; written once as ``run.json`` in the run's folder."""

    id: str
    workflow_id: str
    model: str
    revision: int
    as_of: datetime
    contract: Contract
    views: tuple[FeatureView, ...]
    package: str  # import root of the code snapshot
    snapshot: str
    tables: str  # root folder of the versioned tables
    lock: str | None = None
    git_commit: str | None = None
    champion: Champion | None = None
    tracking_url: str | None = None  # of MLflow; None: the run is not tracked and gets number 1 above ``untracked``
    parameters: dict[str, Scalar] = field(default_factory=dict)  # on top of the contract's
    transforms: tuple[Transform, ...] = ()

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the model's inputs: those of the contract, the features, the transforms."""
        features = (feature.name for view in self.views for feature in view.features)
        return (*self.contract.ask.inputs, *features, *(transform.name for transform in self.transforms))
