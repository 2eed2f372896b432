"""Durations as the contract writes them: ``30s``, ``90m``, ``6h``, ``14d``, ``4w``."""

from __future__ import annotations

import re
from datetime import timedelta

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")

#: Longer than anything a model is watched for, and far from the overflow of dates.
LONGEST = timedelta(days=36_500)


def parse_duration(text: str) -> timedelta | None:
    """The duration that ``text`` writes, or None when it writes none or one longer than ``LONGEST``.

    >>> parse_duration("6h")
    datetime.timedelta(seconds=21600)
    >>> parse_duration("6 hours") is None
    True
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        return None
    seconds = float(match[1]) * _UNITS[match[2]]
    return timedelta(seconds=seconds) if seconds <= LONGEST.total_seconds() else None


def format_duration(duration: timedelta) -> str:
    """The shortest text that ``parse_duration`` reads back; whole numbers, in the largest unit up to days.

    >>> format_duration(timedelta(hours=36)), format_duration(timedelta(days=14))
    ('36h', '14d')
    """
    seconds = duration.total_seconds()
    for unit in "dhm":
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{int(seconds // _UNITS[unit])}{unit}"
    return f"{seconds:g}s"
