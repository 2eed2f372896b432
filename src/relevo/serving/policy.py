"""Pure decisions on routes and counters: valid splits, shares, differences, percentiles."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from itertools import accumulate
from typing import Any, TypeVar

from relevo.contract.model import Contract
from relevo.errors import Invalid
from relevo.serving.model import (
    LATENCY_EDGES_MS,
    Arm,
    Counters,
    EndpointSettings,
    LabelCounters,
    ShadowArm,
    ShadowCounters,
)

Counts = TypeVar("Counts", Counters, LabelCounters, ShadowCounters)
#: Counters of a version that was asked so many requests, each with its latency.
Asked = Counters | ShadowCounters
Sums = TypeVar("Sums", Counters, ShadowCounters)


def settings_of(contract: Contract) -> EndpointSettings:
    """What the contract says of serving."""
    return EndpointSettings(
        log=contract.log.mode,
        log_sample=contract.log.sample,
        log_when_full=contract.log.when_full,
        sticky=contract.release.canary.sticky,
        limits=contract.serving.limits,
    )


def checked_arms(arms: Iterable[Arm]) -> tuple[Arm, ...]:
    """The arms of a route, when they are a split.

    Raises:
        Invalid: There is none, a version comes twice, a share is not above 0, or the shares do not sum to 100.
    """
    split = tuple(arms)
    if not split:
        raise Invalid("A route needs at least one arm.", field="arms")
    versions = [arm.version for arm in split]
    if len(set(versions)) != len(versions):
        raise Invalid(f"A version may have one arm only, got versions {versions}.", field="arms")
    for arm in split:
        if not arm.percent > 0:
            raise Invalid(f"An arm needs a share above 0 %, got {arm.percent} for version {arm.version}.", field="arms")
    total = sum(arm.percent for arm in split)
    if abs(total - 100) > 1e-6:
        raise Invalid(f"The shares of a route sum to 100 %, got {total:g}.", field="arms")
    return split


def checked_shadow(shadow: ShadowArm | None, arms: Sequence[Arm]) -> ShadowArm | None:
    """The shadow of a route, when it can be one.

    Raises:
        Invalid: It has traffic of its own, or its share is not above 0 and at most 1.
    """
    if shadow is None:
        return None
    if shadow.version in {arm.version for arm in arms}:
        raise Invalid(f"Version {shadow.version} has an arm, so it cannot be its own shadow.", field="shadow")
    if not 0 < shadow.share <= 1:
        raise Invalid(f"A shadow needs a share above 0, up to 1, got {shadow.share}.", field="shadow")
    return shadow


def bounds(arms: Sequence[Arm]) -> tuple[float, ...]:
    """Upper bounds of the arms' parts of [0, 1), in the arms' order; the last is 1.

    Shares that do not sum to 100 (arms were left out) are rescaled.

    >>> bounds([Arm(1, 75), Arm(2, 25)])
    (0.75, 1.0)
    """
    total = sum(arm.percent for arm in arms)
    return (*(part / total for part in accumulate(arm.percent for arm in arms[:-1])), 1.0)


def since(after: Sums, before: Sums | None) -> Sums:
    """What was counted between two readings."""
    return after if before is None else _by_field(after, before, operator.sub)


def add(first: Sums, second: Sums) -> Sums:
    """The counts of both."""
    return _by_field(first, second, operator.add)


def add_labels(first: LabelCounters, second: LabelCounters) -> LabelCounters:
    """The counts of both."""
    return _by_field(first, second, operator.add)


def _by_field(first: Counts, second: Counts, combine: Callable[[Any, Any], Any]) -> Counts:
    """The two combined field by field; a tuple of counts by its items."""
    combined: dict[str, Any] = {}
    for one in fields(first):
        a, b = getattr(first, one.name), getattr(second, one.name)
        combined[one.name] = tuple(map(combine, a, b)) if isinstance(a, tuple) else combine(a, b)
    return type(first)(**combined)


def error_rate(counters: Asked) -> float | None:
    """Share of the requests that failed; None without a request.

    >>> error_rate(Counters(requests=200, failed=1))
    0.005
    """
    return counters.failed / counters.requests if counters.requests else None


def latency_ms(counters: Asked, quantile: float) -> float | None:
    """The latency that the share ``quantile`` of the requests kept, in milliseconds; None without a request.

    Interpolated linearly inside its bucket. What is slower than the last edge gives infinity: it keeps no bound.

    >>> counts = [0] * (len(LATENCY_EDGES_MS) + 1)
    >>> counts[5] = 100  # between 0.75 and 1 ms
    >>> round(latency_ms(Counters(requests=100, latency=tuple(counts)), 0.5), 3)
    0.875
    """
    total = sum(counters.latency)
    if total == 0:
        return None
    rank = quantile * total
    below = 0
    for index, count in enumerate(counters.latency):
        if count and below + count >= rank:
            if index == len(LATENCY_EDGES_MS):
                return math.inf
            low = LATENCY_EDGES_MS[index - 1] if index else 0.0
            return low + (LATENCY_EDGES_MS[index] - low) * max(rank - below, 0.0) / count
        below += count
    return math.inf


def slower_than(counters: Asked, limit_ms: float) -> int:
    """Requests that were surely slower than the limit: those in the buckets that begin at or above it."""
    begins = (0.0, *LATENCY_EDGES_MS)
    return sum(count for begin, count in zip(begins, counters.latency, strict=True) if begin >= limit_ms)


def p99_ms(counters: Asked) -> float | None:
    """The 99th percentile of the latency in milliseconds; None without a request."""
    return latency_ms(counters, 0.99)
