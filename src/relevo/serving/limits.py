"""What requests may take: of the gateway worker as a whole, and of each endpoint in it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from relevo.contract.model import ServingLimits
from relevo.platform.settings import Settings
from relevo.runtimes.isolated import ProcessLimits

#: A process is not ended sooner, however little time a request has: its successor takes some to load the model.
_SHORTEST_CALL_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request, and all together, may take in one worker.

    Attributes:
        body_bytes: Of a body, as sent and after its decompression.
        rows: Or labels, of one request.
        concurrency: Requests in flight: of the worker as a whole, or of an endpoint that declares its own.
        timeout_ms: From the whole body to the answer.
        queue_ms: For so long a request may be expected to wait for its turn.
        lag_ms: For so long an event may wait for the worker's event loop.
        body_seconds: For the body to arrive.
        process_bytes: Of the process that answers for a model in one of its own.
    """

    body_bytes: int = 10_000_000
    rows: int = 10_000
    concurrency: int = 1_000
    timeout_ms: int = 10_000
    queue_ms: int = 500
    lag_ms: int = 500
    body_seconds: float = 30.0
    process_bytes: int | None = None

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """The limits of every endpoint that declares none."""
        return cls(
            body_bytes=settings.gateway_body_bytes,
            rows=settings.gateway_rows,
            concurrency=settings.gateway_concurrency,
            timeout_ms=settings.gateway_timeout_ms,
            queue_ms=settings.gateway_queue_ms,
            lag_ms=settings.gateway_lag_ms,
            body_seconds=settings.gateway_body_seconds,
            process_bytes=settings.gateway_process_bytes or settings.model_bytes,
        )

    def of_endpoint(self, declared: ServingLimits) -> Limits:
        """These limits, but for those that the endpoint declares."""
        return replace(self, **{name: value for name, value in asdict(declared).items() if value is not None})

    @property
    def of_process(self) -> ProcessLimits:
        """What a model's own process may take. A call is given up when nobody can wait for it any more."""
        return ProcessLimits(max(_SHORTEST_CALL_SECONDS, self.timeout_ms / 1000), self.process_bytes)
