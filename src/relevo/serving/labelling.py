"""The labels route: outcomes by prediction id, stored before they are acknowledged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from datetime import datetime
from functools import partial
from time import perf_counter

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from relevo.errors import Invalid, TooLarge, Unavailable
from relevo.platform.clock import MAX_AHEAD
from relevo.predictions.labels import Label, LabelIntake, LabelResult
from relevo.runtimes.model import Signature
from relevo.serving.counters import Tallies
from relevo.serving.deadlines import before
from relevo.serving.live import LiveEndpoint
from relevo.serving.model import LabelCounters

logger = logging.getLogger(__name__)


class _Label(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    prediction_id: str
    value: float | bool | str | None = None  # a class by its number or its name
    no_outcome: bool = False
    known_at: datetime | None = None


class _Labels(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    labels: list[_Label]
    correct: bool = False


_decode = msgspec.json.Decoder(_Labels).decode
_encode = msgspec.json.Encoder().encode


class Labelling:
    """Takes labels for the gateway. Belongs to the event loop; commits are made in a thread.

    Args:
        intake: The label database.
        thread: Where its calls block.
        tallies: This worker's counters.
        event_now: Reads an endpoint's event time anew.
    """

    def __init__(
        self,
        intake: LabelIntake,
        thread: Executor,
        tallies: Tallies,
        event_now: Callable[[LiveEndpoint], Awaitable[datetime]],
    ) -> None:
        self._intake = intake
        self._thread = thread
        self._tallies = tallies
        self._event_now = event_now

    async def record(self, endpoint: LiveEndpoint, body: bytes) -> tuple[int, bytes]:
        """The status and the body that say what became of the labels: 409 with a conflict, 400 with an unknown id.

        Right labels are stored either way, and the body names the others.

        Raises:
            Invalid: The body is wrong; nothing is stored.
            TooLarge: It brings too many labels.
            Unavailable: The label database does not take them.
            DeadlineExceeded: It took longer than the endpoint's time; the labels may be stored all the same.
        """
        request = _parse(body)
        if len(request.labels) > endpoint.limits.rows:
            raise TooLarge(f"A request brings at most {endpoint.limits.rows:,} labels, got {len(request.labels):,}.")
        champion = endpoint.champion()
        signature = None if champion is None else champion.signature
        now = endpoint.now()
        if any(
            label.known_at and label.known_at.tzinfo and label.known_at > now + MAX_AHEAD for label in request.labels
        ):
            now = await self._event_now(endpoint)
        labels = [_checked(label, place, now, signature) for place, label in enumerate(request.labels)]
        loop = asyncio.get_running_loop()
        record = partial(self._intake.record, endpoint.name, endpoint.number, labels, correct=request.correct)
        try:
            until = perf_counter() + endpoint.patience_seconds
            result = await before(until, loop.run_in_executor(self._thread, record))
        except SQLAlchemyError as error:
            logger.exception("labels of %s cannot be stored", endpoint.name)
            raise Unavailable("The labels could not be stored, none of them; send them again later.") from error
        self._tallies.add_labels(endpoint.name, _counts(result))
        status = 409 if result.conflicts else 400 if result.unknown else 200
        return status, _encode(result)


def _parse(body: bytes) -> _Labels:
    try:
        return _decode(body)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `")
        raise Invalid(f"{message}.", field=path.removesuffix("`").removeprefix("$.") or None) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"The body is not valid JSON: {error}.") from None


def _checked(label: _Label, place: int, now: datetime, signature: Signature | None) -> Label:
    where = f"labels[{place}]"
    if label.no_outcome is (label.value is not None):
        raise Invalid('Expected either a "value" or "no_outcome": true.', field=f"{where}.value")
    known_at = label.known_at or now
    if known_at.tzinfo is None:
        raise Invalid(f"A time needs its offset from UTC, got {known_at.isoformat()}.", field=f"{where}.known_at")
    if known_at > now + MAX_AHEAD:
        raise Invalid(
            f"The label is known at {known_at.isoformat()}, and event time is {now.isoformat()}.",
            field=f"{where}.known_at",
        )
    classes = () if signature is None else signature.classes
    value = None if label.value is None else _number(label.value, classes, f"{where}.value")
    return Label(label.prediction_id, value, known_at)


def _number(value: float | bool | str, classes: Sequence[str], field: str) -> float:
    """A label as it is stored: the place of its class, or the number itself.

    A class is named by its text, or by its place. Classes that are numbers are named by their value, which is their
    place only for 0, 1, 2 and so on.
    """
    if not classes:
        if isinstance(value, str):
            raise Invalid(f"Expected a number, got {value[:40]!r}.", field=field)
        return float(value)
    by_value = _values(classes)
    if isinstance(value, str):
        place = classes.index(value) if value in classes else None
    elif by_value is not None:
        place = by_value.get(float(value))
    else:
        place = int(value) if float(value).is_integer() and 0 <= value < len(classes) else None
    if place is None:
        if by_value is not None:
            raise Invalid(f"Expected a class, one of {', '.join(classes)}; got {value!r}.", field=field)
        names = ", ".join(f"{index} ({name})" for index, name in enumerate(classes))
        raise Invalid(f"Expected the name or the number of a class: {names}; got {value!r}.", field=field)
    return float(place)


def _values(classes: Sequence[str]) -> dict[float, int] | None:
    """The place of each class by its value, when all of them are numbers."""
    try:
        return {float(name): place for place, name in enumerate(classes)}
    except ValueError:
        return None


def _counts(result: LabelResult) -> LabelCounters:
    return LabelCounters(result.accepted, result.duplicates, len(result.conflicts), len(result.unknown))
