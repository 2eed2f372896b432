"""What the gateway writes to the prediction log: a frame for each request that was answered, failed or was refused."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from relevo.errors import RelevoError, Unavailable
from relevo.predictions import frames
from relevo.predictions.ids import Issuer, is_unsampled
from relevo.predictions.segments import SegmentWriter
from relevo.runtimes.decoders import Decoded
from relevo.runtimes.exchange import Predictions
from relevo.serving.inputs import now_us_of
from relevo.serving.live import LiveEndpoint
from relevo.serving.model import LogHealth
from relevo.serving.versions import LoadedVersion

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Log:
    """Where answers are logged: one writer for durable endpoints, one for buffered ones, and the key of the ids."""

    durable: SegmentWriter
    buffered: SegmentWriter
    key: bytes
    boot: int


class Asked(msgspec.Struct, gc=False):
    """The rows that a version was asked with, under their ids.

    Attributes:
        asked_us: The asked time of each row, in microseconds since 1970.
        through_us: How far the online store was materialised that filled them, likewise; None: it was not asked.
    """

    endpoint: LiveEndpoint
    version: LoadedVersion
    request: Decoded
    asked_us: list[int]
    ids: list[str]
    through_us: int | None = None


class Recording:
    """Issues prediction ids and logs requests under them. Belongs to the event loop."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._issuers: dict[int, Issuer] = {}

    def issue(self, endpoint: LiveEndpoint, asked_us: list[int]) -> list[str]:
        """A new id for each row."""
        issuer = self._issuers.get(endpoint.number)
        if issuer is None:
            issuer = self._issuers[endpoint.number] = Issuer(self._log.key, endpoint.number, self._log.boot)
        first, sample = asked_us[0], endpoint.settings.log_sample
        if len(asked_us) == 1 or all(at == first for at in asked_us):
            return issuer.issue(first, len(asked_us), sample)
        return [issuer.issue(at, 1, sample)[0] for at in asked_us]

    def append(self, asked: Asked, predictions: Predictions, error: str | None = None) -> bool:
        """Log the rows with their predictions, or with the error why there are none.

        Of the answered rows those are logged that the sample holds; failures always. Gives whether there was something
        to log. A failure that the log does not take is counted where the endpoint answers without a log.

        Raises:
            Unavailable: The log does not take it.
        """
        endpoint, version, request = asked.endpoint, asked.version, asked.request
        rows, keys, asked_us, ids = request.rows, request.keys, asked.asked_us, asked.ids
        sample = endpoint.settings.log_sample if error is None else 1.0
        if sample < 1.0:
            kept = [place for place, one in enumerate(ids) if not is_unsampled(one)]
            version.tally.unsampled_rows += len(ids) - len(kept)
            if not kept:
                return False
            rows, asked_us, ids, predictions = (
                _at(kept, rows),
                _at(kept, asked_us),
                _at(kept, ids),
                _at(kept, predictions),
            )
            keys = _at(kept, keys) if keys else keys
        record = frames.Record(
            endpoint=endpoint.name,
            version=version.version,
            logged_at_us=time.time_ns() // 1000,
            asked_at_us=asked_us,
            ids=ids,
            layout=version.layout,
            inputs=rows,
            keys=[list(key.values()) for key in keys] if version.signature.keys else [],
            predictions=predictions,
            materialised_through_us=asked.through_us,
            request_id=request.request_id,
            status="ok" if error is None else "failed",
            error=error,
            looked_up=version.filling(request.sent).looked_up,
            sample=sample if sample < 1.0 else None,
        )
        try:
            self._writer(endpoint).append(frames.encode(record))
        except Unavailable:
            if error is None or endpoint.settings.log_when_full == "refuse":
                raise
            version.tally.missed_rows += len(ids)
        return True

    def append_shadow(
        self,
        endpoint: LiveEndpoint,
        version: LoadedVersion,
        request: Decoded | None,
        asked_us: list[int],
        given_ids: list[str],
        predictions: Predictions,
        *,
        through_us: int | None = None,
        error: str | None = None,
    ) -> None:
        """Log what a shadow made of the rows that other ids were given for; of a sample, the rows that it holds.

        ``request`` None: the shadow could not read it.

        Raises:
            Unavailable: The log does not take it.
        """
        sample = endpoint.settings.log_sample
        kept = [place for place, one in enumerate(given_ids) if sample >= 1.0 or not is_unsampled(one)]
        if not kept:
            return
        keys = request.keys if request is not None and version.signature.keys else []
        record = frames.Record(
            endpoint=endpoint.name,
            version=version.version,
            logged_at_us=time.time_ns() // 1000,
            asked_at_us=_at(kept, asked_us),
            ids=[],
            layout=frames.NO_LAYOUT if request is None else version.layout,
            inputs=[] if request is None else _at(kept, request.rows),
            keys=[list(key.values()) for key in _at(kept, keys)] if keys else [],
            predictions=_at(kept, predictions) if predictions else [],
            materialised_through_us=through_us,
            request_id=None if request is None else request.request_id,
            status="ok" if error is None else "failed",
            error=error,
            looked_up=None if request is None else version.filling(request.sent).looked_up,
            sample=sample if sample < 1.0 else None,
            shadow_of=_at(kept, given_ids),
        )
        self._writer(endpoint).append(frames.encode(record))

    async def durable(self, endpoint: LiveEndpoint) -> None:
        """Return when what was appended is on the disk, if the endpoint's answers wait for that.

        Raises:
            Unavailable: It could not be written.
        """
        if endpoint.is_durable:
            await self._log.durable.durable()

    def wanted(self, endpoint: LiveEndpoint, ids: list[str]) -> int:
        """How many answered rows of these ids the log should hold."""
        return len(ids) if endpoint.settings.log_sample >= 1.0 else sum(not is_unsampled(one) for one in ids)

    def refused(self, endpoint: LiveEndpoint, version: LoadedVersion, body: bytes, error: RelevoError) -> None:
        """Log a request that was not understood, as far as the log takes it: the caller is refused either way."""
        record = frames.Record(
            endpoint=endpoint.name,
            version=version.version,
            logged_at_us=time.time_ns() // 1000,
            asked_at_us=[now_us_of(endpoint)],
            ids=[],
            layout=frames.NO_LAYOUT,
            inputs=[],
            keys=[],
            predictions=[],
            status="failed",
            error=error.message,
            body=body[: frames.MAX_BODY_BYTES],
        )
        try:
            self._writer(endpoint).append(frames.encode(record))
        except Unavailable as unavailable:
            logger.warning("a refused request was not logged: %s", unavailable.message)

    def health(self) -> LogHealth:
        """How both writers fare."""
        one, other = self._log.durable, self._log.buffered
        return LogHealth(
            failures=one.failures + other.failures,
            lost_frames=one.lost_frames + other.lost_frames,
            waiting_bytes=one.waiting_bytes + other.waiting_bytes,
            error=one.error or other.error,
        )

    def _writer(self, endpoint: LiveEndpoint) -> SegmentWriter:
        return self._log.durable if endpoint.is_durable else self._log.buffered


def _at(places: list[int], values: Sequence[Any]) -> list[Any]:
    return [values[place] for place in places]
