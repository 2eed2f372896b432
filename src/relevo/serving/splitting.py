"""Where a request falls in a split: by a key that always falls in the same place, or in turn.

The place is a number in [0, 1), and the arms of a route divide that range in their order (``policy.bounds``). With two
arms, a canary that gets more takes keys from the champion and never gives one back, since the bound between them moves
one way while the keys stay where they are.
"""

from __future__ import annotations

import hashlib
import math
from datetime import UTC, datetime

#: The fractional part of the golden ratio: its multiples fill [0, 1) as evenly as any sequence can.
GOLDEN = (math.sqrt(5) - 1) / 2

_PERSON = b"relevo-split"


def next_in_turn(position: float) -> float:
    """The place after ``position``, so that a share of 5 % is 5 of any 100 requests, give or take one."""
    return (position + GOLDEN) % 1.0


def place_of(secret: bytes, endpoint: str, key: bytes) -> float:
    """The place of a key: the same in every worker and after every restart.

    Args:
        secret: The installation's key, so that nobody outside can choose keys that meet a canary.
        endpoint: Another endpoint puts the same key elsewhere.
        key: As ``key_of`` gives it.
    """
    digest = hashlib.blake2b(endpoint.encode() + b"\0" + key, digest_size=8, key=secret, person=_PERSON).digest()
    return (int.from_bytes(digest) >> 11) / 2**53


def key_of(value: object) -> bytes | None:
    """A value as a key; None for null, which is nobody's.

    A number is the same key whether it is sent as ``7``, as ``7.0`` or, in a header, as text.

    >>> key_of(7.0), key_of(7), key_of("7"), key_of(True), key_of(None)
    (b'7', b'7', b'7', b'true', None)
    """
    if value is None:
        return None
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, datetime):
        value = value.astimezone(UTC).isoformat()
    return str(value).encode()
