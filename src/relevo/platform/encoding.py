"""Dataclasses to JSON and back, and the canonical bytes that digests and signatures cover."""

from __future__ import annotations

import hashlib
import json
import threading
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

#: msgspec reads a class on first use, and crashes when two threads do so for the same one. So classes are read by
#: ``parse`` alone, or by a decoder that is made with its module.
_preparing = threading.Lock()
_prepared: set[Any] = set()


def to_json(value: object) -> Any:
    """``value`` as plain JSON types: dataclasses become objects, times ISO 8601, durations ISO 8601."""
    return msgspec.to_builtins(value, str_keys=True)


def parse(kind: type[T], value: object) -> T:
    """``value`` (plain JSON types) as ``kind``.

    Raises:
        msgspec.ValidationError: With the path of the field that does not fit.
    """
    if kind in _prepared:
        return msgspec.convert(value, kind, strict=False)
    with _preparing:
        parsed = msgspec.convert(value, kind, strict=False)
        _prepared.add(kind)
    return parsed


def canonical(value: object) -> bytes:
    """The one JSON text of ``value``: keys sorted, no spaces, UTF-8.

    >>> canonical({"b": 1, "a": [2.5, None]})
    b'{"a":[2.5,null],"b":1}'
    """
    return json.dumps(to_json(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest(value: object) -> str:
    """SHA-256 of the canonical JSON, in hex."""
    return hashlib.sha256(canonical(value)).hexdigest()
