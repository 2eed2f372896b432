"""How the pages say numbers, times and states. Filters of the templates; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from markupsafe import Markup, escape

#: What stands where there is nothing to say.
NOTHING = "–"

#: How states are shown: a tone for the colour, and words. The words alone carry the meaning.
TONES: dict[str, str] = {
    "healthy": "good",
    "live": "good",
    "production": "good",
    "passed": "good",
    "approved": "good",
    "resolved": "quiet",
    "final": "quiet",
    "archived": "quiet",
    "cancelled": "quiet",
    "superseded": "quiet",
    "not live": "quiet",
    "candidate": "plain",
    "provisional": "plain",
    "training": "busy",
    "staging": "busy",
    "shadow": "busy",
    "canary": "busy",
    "waiting_for_approval": "busy",
    "warning": "warn",
    "drifted": "warn",
    "rejected": "warn",
    "refused": "bad",
    "rolled_back": "bad",
    "critical": "bad",
    "failed": "bad",
}


def tone(state: str) -> str:
    """The tone of a state's badge.

    >>> tone("rolled_back"), tone("unheard of")
    ('bad', 'plain')
    """
    return TONES.get(str(state), "plain")


def words(name: str) -> str:
    """A name of the code as words.

    >>> words("waiting_for_approval")
    'waiting for approval'
    """
    return str(name).replace("_", " ")


def number(value: float | None, digits: int = 4) -> str:
    """A measured value with a fixed number of decimals; large ones in groups of three.

    >>> number(0.77912), number(None), number(12345.678, 1)
    ('0.7791', '–', '12,345.7')
    """
    if value is None or isinstance(value, bool) or not math.isfinite(value):
        return NOTHING
    return f"{value:,.{digits}f}"


def count(value: float | None) -> str:
    """A whole number in groups of three.

    >>> count(27004)
    '27,004'
    """
    return NOTHING if value is None else f"{value:,.0f}"


def percent(value: float | None, digits: int = 0) -> str:
    """A share as percent.

    >>> percent(0.0642, 1)
    '6.4 %'
    """
    return NOTHING if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f} %"


def signed(value: float | None, digits: int = 4) -> str:
    """A difference with its sign.

    >>> signed(0.0131), signed(-0.5, 1)
    ('+0.0131', '−0.5')
    """
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:+,.{digits}f}".replace("-", "−")


def short(digest: str | None) -> str:
    """The first characters of a digest."""
    return NOTHING if not digest else str(digest)[:12]


def duration(value: timedelta | None) -> str:
    """A length of time in its largest whole unit.

    >>> duration(timedelta(days=14)), duration(timedelta(hours=6)), duration(timedelta(days=1))
    ('14 days', '6 hours', '1 day')
    """
    if value is None:
        return NOTHING
    seconds = round(value.total_seconds())
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds and seconds % size == 0:
            number = seconds // size
            return f"{number} {unit}" if number == 1 else f"{number} {unit}s"
    return f"{seconds} s"


def as_time(value: datetime | str | None) -> datetime | None:
    """A time from the state or from plain JSON, in UTC."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return None if value is None else value.astimezone(UTC)


def moment(value: datetime | str | None) -> Markup:
    """A time to the minute, always UTC and said so."""
    at = as_time(value)
    if at is None:
        return escape(NOTHING)
    return Markup('<time datetime="{}">{} <abbr>UTC</abbr></time>').format(
        at.isoformat(timespec="seconds"), at.strftime("%Y-%m-%d %H:%M")
    )


def second(value: datetime | str | None) -> Markup:
    """A time to the second, UTC."""
    at = as_time(value)
    if at is None:
        return escape(NOTHING)
    return Markup('<time datetime="{}">{} <abbr>UTC</abbr></time>').format(
        at.isoformat(timespec="seconds"), at.strftime("%Y-%m-%d %H:%M:%S")
    )


def day(value: datetime | str | None) -> Markup:
    """The UTC day of a time.

    >>> str(day("2013-04-08T00:00:00+00:00"))
    '<time datetime="2013-04-08T00:00:00+00:00">8 Apr 2013</time>'
    """
    at = as_time(value)
    if at is None:
        return escape(NOTHING)
    return Markup('<time datetime="{}">{}</time>').format(at.isoformat(timespec="seconds"), f"{at.day} {at:%b %Y}")


def span(start: datetime | str, end: datetime | str) -> Markup:
    """A window in days: its first, and the one that it ends before."""
    return Markup("{} to {}").format(day(start), day(end))


def stamp(value: datetime) -> str:
    """A time as it stands in a page's address.

    >>> stamp(datetime(2013, 4, 8, tzinfo=UTC))
    '2013-04-08T00:00:00Z'
    """
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def plain(value: object) -> str:
    """A fact of any JSON type as one line of text."""
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{words(str(name))}: {plain(each)}" for name, each in value.items()) or NOTHING
    if isinstance(value, list | tuple):
        return ", ".join(plain(each) for each in value) or NOTHING
    return str(value)


FILTERS = {
    function.__name__: function
    for function in (
        count, day, duration, moment, number, percent, plain, second, short, signed, span, stamp, tone, words,
    )
}  # fmt: skip
