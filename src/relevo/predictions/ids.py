"""Prediction ids: one a row, verified without a lookup, so that a forged or foreign id is refused at once.

An id is 27 bytes as 36 characters of URL-safe base64: endpoint number (2), hour of event time since 1970 (3), boot of
the worker that issued it (8), its sequence there (5), and a BLAKE2s tag over all of these (9).

Where an endpoint logs a sample of its predictions, the tag decides: it is a keyed hash, so nobody can choose to be left
out, and the same id is always decided the same way. The first bit of the sequence then says that the row is left out,
so that a label that finds no row is told apart from a loss, whatever the share was when the id was issued.
"""

from __future__ import annotations

import binascii
import hashlib
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from relevo.errors import Corrupted, Invalid
from relevo.platform.files import write_once

KEY_FILE = "prediction-id.key"
ID_LENGTH = 36
_KEY_BYTES = 32
_TAG_BYTES = 9
_HOUR_US = 3_600_000_000
_LAST_HOUR = 2**23 - 1  # year 2926; times beyond it, or before 1013, are kept as the last and first hour
_TO_URL = bytes.maketrans(b"+/", b"-_")
_FROM_URL = bytes.maketrans(b"-_", b"+/")
_UNSAMPLED = 1 << 39
_TAG_RANGE = 1 << 32
#: Ids of one endpoint that are made ahead: in a loop they cost less than each alone, between other work.
_MOST_AHEAD = 64

#: The sequence's first bit is the third of the six in this character of an id.
UNSAMPLED_PLACE = 17
UNSAMPLED_LETTERS = frozenset(
    letter
    for value, letter in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    if value & 0b001000
)


@dataclass(frozen=True, slots=True)
class IssuedId:
    """What a verified id says: the endpoint, the hour that was asked for, the worker boot, the sequence there.

    ``is_unsampled``: the sample of the endpoint's log does not hold its row, unless the request failed.
    """

    endpoint_number: int
    event_hour_at: datetime
    boot: int
    sequence: int
    is_unsampled: bool = False


def is_unsampled(prediction_id: str) -> bool:
    """Whether the sample of the log leaves the row of this id out, as the id itself says; not verified."""
    return prediction_id[UNSAMPLED_PLACE] in UNSAMPLED_LETTERS


def new_boot() -> int:
    """A number for one start of a worker, below 2**63: seconds of wall time, then random bits. Later is larger."""
    return int(time.time()) << 31 | secrets.randbits(31)


def load_key(folder: Path) -> bytes:
    """The key of this installation's ids, made with mode 0600 when it is missing; safe when several start at once.

    Raises:
        Corrupted: The file does not hold 32 bytes.
    """
    path = folder / KEY_FILE
    write_once(path, secrets.token_bytes(_KEY_BYTES))
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise Corrupted(f"{path} should hold {_KEY_BYTES} bytes and holds {len(key)}; restore it from a backup.")
    return key


class Issuer:
    """Issues the ids of one endpoint in one worker boot. Not thread-safe: it belongs to the event loop.

    Two issuers of the same endpoint and boot would repeat ids, so a worker keeps one for each endpoint. Single ids are
    made ahead, in one loop for many requests of the same hour; those that are left when it ends are never issued.

    Args:
        key: 32 bytes, from `load_key`.
        endpoint_number: 0 to 65,535.
        boot: From `new_boot`.
    """

    def __init__(self, key: bytes, endpoint_number: int, boot: int) -> None:
        self._tagger = _tagger(key)
        self._endpoint = endpoint_number.to_bytes(2, "big")
        self._boot = boot.to_bytes(8, "big")
        self._sequence = 0
        self._hour: int | None = None
        self._sample = 1.0
        self._head = b""
        self._ahead: list[str] = []
        self._n_ahead = 0

    def issue(self, event_at_us: int, n: int, sample: float = 1.0) -> list[str]:
        """``n`` new ids for rows asked at ``event_at_us`` (microseconds of event time since 1970).

        ``sample`` is the share of them that the log keeps; the others say that it does not.
        """
        hour = event_at_us // _HOUR_US
        if hour != self._hour or sample != self._sample:
            self._begin(hour, sample)
        if n != 1:
            return self._make(n)
        if not self._ahead:
            self._n_ahead = min(2 * self._n_ahead or 1, _MOST_AHEAD)
            self._ahead = self._make(self._n_ahead)
            self._ahead.reverse()
        return [self._ahead.pop()]

    def _begin(self, hour: int, sample: float) -> None:
        kept = min(max(hour, -_LAST_HOUR), _LAST_HOUR)
        self._head = self._endpoint + kept.to_bytes(3, "big", signed=True) + self._boot
        self._hour, self._sample = hour, sample
        self._ahead, self._n_ahead = [], 0

    def _make(self, n: int) -> list[str]:
        head, tagger, sample = self._head, self._tagger, self._sample
        first = self._sequence
        self._sequence = first + n
        parts: list[bytes] = []
        for sequence in range(first, first + n):
            body = head + sequence.to_bytes(5, "big")
            tag = tagger.copy()
            tag.update(body)
            digest = tag.digest()
            if sample < 1.0 and int.from_bytes(digest[:4], "big") >= sample * _TAG_RANGE:
                body = head + (sequence | _UNSAMPLED).to_bytes(5, "big")
                tag = tagger.copy()
                tag.update(body)
                digest = tag.digest()
            parts += body, digest
        # 27 bytes are 36 characters without padding, so that all can be encoded in one go.
        text = binascii.b2a_base64(b"".join(parts), newline=False).translate(_TO_URL).decode("ascii")
        return [text[start : start + ID_LENGTH] for start in range(0, n * ID_LENGTH, ID_LENGTH)]


def verify(key: bytes, prediction_id: str) -> IssuedId:
    """What ``prediction_id`` says, once its tag is found to be made with ``key``.

    Raises:
        Invalid: It was not issued by this installation.
    """
    raw = _decoded(prediction_id)
    tag = _tagger(key)
    tag.update(raw[:-_TAG_BYTES])
    if not secrets.compare_digest(tag.digest(), raw[-_TAG_BYTES:]):
        raise Invalid("The prediction id was not issued here: its tag does not match.", field="prediction_id")
    sequence = int.from_bytes(raw[13:18], "big")
    return IssuedId(
        endpoint_number=int.from_bytes(raw[:2], "big"),
        event_hour_at=datetime.fromtimestamp(int.from_bytes(raw[2:5], "big", signed=True) * 3600, UTC),
        boot=int.from_bytes(raw[5:13], "big"),
        sequence=sequence & ~_UNSAMPLED,
        is_unsampled=sequence & _UNSAMPLED != 0,
    )


def _decoded(prediction_id: str) -> bytes:
    if len(prediction_id) != ID_LENGTH or "+" in prediction_id or "/" in prediction_id:
        raise Invalid(f"A prediction id has {ID_LENGTH} URL-safe characters.", field="prediction_id")
    try:
        return binascii.a2b_base64(prediction_id.encode("ascii").translate(_FROM_URL), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise Invalid(f"A prediction id has {ID_LENGTH} URL-safe characters.", field="prediction_id") from error


def _tagger(key: bytes) -> hashlib.blake2s:
    return hashlib.blake2s(key=key, digest_size=_TAG_BYTES, person=b"relevoid")
