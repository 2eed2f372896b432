"""Which rows a run fits on and which it holds out. Pure decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from relevo.contract.model import Contract, Label, Source, Training
from relevo.errors import Invalid
from relevo.features.model import FeatureView

#: A slice with fewer rows says more about chance than about the model.
MIN_SLICE_ROWS = 200

#: Without event time, a row is held out by its key's bucket of so many.
BUCKETS = 10_000


@dataclass(frozen=True, slots=True)
class Split:
    """Bounds of event time: fit on ``[start, holdout_start)``, hold out ``[holdout_start, end)``; None is unbounded."""

    start: datetime | None
    holdout_start: datetime
    end: datetime


def columns_read(contract: Contract, views: Sequence[FeatureView], source: Source) -> tuple[str, ...]:
    """The columns of ``source`` that a run needs, each once: those that name and time its rows, and what is learned."""
    ask, label = contract.ask, contract.label
    names: list[str | None] = [*source.key, source.event_time, source.known_time]
    if source.name == ask.source:
        names += [*ask.inputs, ask.at, *contract.monitor.slices, *(name for view in views for name in view.entity.key)]
    if source.name == label.source:
        names.append(label.column)
    for view in views:
        if view.source == source.name:
            names += [*view.entity.key, *view.reads]
    return tuple(dict.fromkeys(name for name in names if name is not None))


def matured_before(as_of: datetime, label: Label) -> datetime:
    """Rows asked before this have had their time for a label, late ones too.

    A label that comes in on time is not a fair sample of all: the late ones differ, so younger rows are left out whole.
    """
    return as_of - label.available_after - label.allowance


def split(training: Training, *, last: datetime, end: datetime, start_of_fraction: datetime | None = None) -> Split:
    """The bounds for a model with event time.

    Args:
        training: The contract's block.
        last: Time of the newest matured row; data that ends early is held out from its own end.
        end: ``matured_before``, exclusive.
        start_of_fraction: Time of the first row of the newest part, for a holdout that is a fraction of the rows.

    Raises:
        Invalid: When the holdout is a fraction and its start is not given.
    """
    if isinstance(training.holdout, timedelta):
        holdout_start = min(last, end) - training.holdout
    elif start_of_fraction is not None:
        holdout_start = start_of_fraction
    else:
        raise Invalid("a holdout that is a fraction needs the time at which it starts", field="training.holdout")
    start = None if training.window is None else holdout_start - training.window
    return Split(start, holdout_start, end)


def comparable_from(holdout_start: datetime, champion_trained_until: datetime | None) -> datetime:
    """From when on neither of the two was trained: the rows on which they may be compared."""
    if champion_trained_until is None:
        return holdout_start
    return max(holdout_start, champion_trained_until)
