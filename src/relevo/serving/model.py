"""Endpoints and routes: which versions answer, in which shares."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A name that applications call. ``number`` is its part of a prediction id."""

    name: str
    number: int
    log: Literal["durable", "buffered"]


@dataclass(frozen=True, slots=True)
class Arm:
    """A version and its share of the requests, in percent."""

    version: int
    percent: float


@dataclass(frozen=True, slots=True)
class Route:
    """One revision of an endpoint's traffic split. The percents of the arms sum to 100."""

    endpoint: str
    revision: int
    arms: tuple[Arm, ...]
    recorded_at: datetime
    effective_event_at: datetime
    reason: str
    set_by: str

    @property
    def champion(self) -> int:
        """The version with the first arm: the one that a canary is measured against."""
        return self.arms[0].version
