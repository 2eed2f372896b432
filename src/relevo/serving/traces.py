"""Spans of requests: a request, and in it decode, lookup, predict and log. Imported only when traces are configured.

Spans wait in memory and a thread sends them; when it does not keep up they are dropped, and no request waits. They name
endpoint, version, rows and codes of errors; no values of a caller's, and no messages, which may quote some.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import version as installed
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from relevo.errors import RelevoError
from relevo.runtimes.decoders import Decoded
from relevo.runtimes.exchange import Language, Predictions, Question
from relevo.serving.calls import Receive, Scope, Send
from relevo.serving.gateway import Gateway
from relevo.serving.inputs import Inputs
from relevo.serving.live import LiveEndpoint
from relevo.serving.predicting import Predict, predict
from relevo.serving.protocol import WHOLE, Headers
from relevo.serving.recording import Asked, Log, Recording
from relevo.serving.versions import LoadedVersion

#: For so long a worker that stops waits for the last spans to be sent.
CLOSE_SECONDS = 2.0

_UNTRACED = ("/health", "/metrics", "/v2/health/live", "/v2/health/ready")
_ENDPOINT = re.compile(r"/endpoints/[^/]+(/(?:invocations|explain|labels|openapi\.json|ping|version))?")
_MODEL = re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?(/(?:infer|ready|config))?")
_CONTEXT = (b"traceparent", b"tracestate")


class Traces:
    """The spans of one worker."""

    def __init__(self, worker: int) -> None:
        attributes = {"service.instance.id": f"gateway-{worker}", "service.version": installed("relevo")}
        if "OTEL_SERVICE_NAME" not in os.environ and "service.name=" not in os.environ.get(
            "OTEL_RESOURCE_ATTRIBUTES", ""
        ):
            attributes["service.name"] = "relevo-gateway"
        self._provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("relevo.serving", installed("relevo"))

    def inputs(self, *arguments: Any) -> Inputs:
        """As ``Inputs``, with spans."""
        return TracedInputs(self._tracer, *arguments)

    def recording(self, log: Log) -> Recording:
        """As ``Recording``, with spans."""
        return TracedRecording(self._tracer, log)

    def predict(self) -> Predict:
        """As ``predicting.predict``, with spans."""
        return TracedPredict(self._tracer)

    def application(self, gateway: Gateway) -> TracedGateway:
        """The gateway, with spans."""
        return TracedGateway(self._tracer, gateway)

    async def close(self) -> None:
        """Send what waits, for a while at most: a collector that is away holds up no worker that stops."""
        closing = threading.Thread(target=self._provider.shutdown, name="close-traces", daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, CLOSE_SECONDS)


class TracedGateway:
    """The application, with a span for each request that is not about the worker itself."""

    def __init__(self, tracer: Tracer, gateway: Gateway) -> None:
        self._tracer = tracer
        self._gateway = gateway
        self._propagator = TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As the gateway's."""
        if scope["path"] in _UNTRACED:
            await self._gateway(scope, receive, send)
            return
        with self._request(scope) as span:

            async def send_and_note(message: dict[str, Any]) -> None:
                if message["type"] == "http.response.start":
                    _note(span, message["status"])
                await send(message)

            extensions = scope.get("extensions", {})
            send_whole = extensions.get(WHOLE)

            def send_whole_and_note(status: int, headers: Headers, body: bytes) -> bool:
                _note(span, status)
                is_sent: bool = send_whole(status, headers, body)
                return is_sent

            if send_whole is not None:
                extensions[WHOLE] = send_whole_and_note
            await self._gateway(scope, receive, send_and_note)

    def _request(self, scope: Scope) -> AbstractContextManager[Span]:
        """The span of a request, in the caller's trace if it names one."""
        path, method = scope["path"], scope["method"]
        route = route_of(path)
        attributes = {"http.request.method": method, "url.path": path[:200]}
        if route is not None:
            attributes["http.route"] = route
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in _CONTEXT}
        return self._tracer.start_as_current_span(
            method if route is None else f"{method} {route}",
            self._propagator.extract(headers),
            SpanKind.SERVER,
            attributes,
        )


class TracedInputs(Inputs):
    """The inputs, with a span for what is read and one for what is looked up and computed."""

    def __init__(self, tracer: Tracer, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._tracer = tracer

    async def take(
        self,
        endpoint: LiveEndpoint,
        version: LoadedVersion,
        language: Language,
        question: Question,
        until: float,
        request: Decoded | None = None,
    ) -> tuple[Decoded, list[int]]:
        """As ``Inputs.take``; the span of the request learns who answers, and how many rows it has."""
        caller = get_current_span()
        if not caller.is_recording():  # the sampler left the request out
            return await super().take(endpoint, version, language, question, until, request)
        caller.set_attributes({"relevo.endpoint": endpoint.name, "relevo.version": version.version})
        with _span(self._tracer, "decode", {"relevo.body_bytes": len(question.body)}):
            request, asked_us = await super().take(endpoint, version, language, question, until, request)
        caller.set_attribute("relevo.rows", len(request.rows))
        return request, asked_us

    async def fill(self, version: LoadedVersion, request: Decoded, asked_us: list[int], until: float) -> int | None:
        """As ``Inputs.fill``."""
        if not get_current_span().is_recording():
            return await super().fill(version, request, asked_us, until)
        with _span(self._tracer, "lookup", {"relevo.rows": len(asked_us)}):
            return await super().fill(version, request, asked_us, until)


class TracedRecording(Recording):
    """The recording, with a span for what is appended to the log and one for the disk that holds it."""

    def __init__(self, tracer: Tracer, log: Log) -> None:
        super().__init__(log)
        self._tracer = tracer

    def append(self, asked: Asked, predictions: Predictions, error: str | None = None) -> bool:
        """As ``Recording.append``."""
        if not get_current_span().is_recording():
            return super().append(asked, predictions, error)
        with _span(self._tracer, "log", {"relevo.rows": len(asked.ids)}):
            return super().append(asked, predictions, error)

    async def durable(self, endpoint: LiveEndpoint) -> None:
        """As ``Recording.durable``."""
        if not get_current_span().is_recording():
            await super().durable(endpoint)
            return
        with _span(self._tracer, "log.durable", {}):
            await super().durable(endpoint)


class TracedPredict:
    """Predictions with a span."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    async def __call__(
        self, version: LoadedVersion, rows: Sequence[Sequence[object]], threads: Executor, until: float
    ) -> Predictions:
        """As ``predicting.predict``."""
        if not get_current_span().is_recording():
            return await predict(version, rows, threads, until)
        with _span(self._tracer, "predict", {"relevo.version": version.version, "relevo.rows": len(rows)}):
            return await predict(version, rows, threads, until)


def route_of(path: str) -> str | None:
    """The path with names in braces, so that there are few; None for one that leads nowhere.

    >>> route_of("/v2/models/parcels/versions/3/infer")
    '/v2/models/{name}/versions/{version}/infer'
    """
    endpoint = _ENDPOINT.fullmatch(path)
    if endpoint is not None:
        return "/endpoints/{name}" + (endpoint[1] or "")
    model = _MODEL.fullmatch(path)
    if model is not None:
        return "/v2/models/{name}" + ("/versions/{version}" if model[1] else "") + (model[2] or "")
    return path if path in ("/v2", "/v2/repository/index") else None


@contextmanager
def _span(tracer: Tracer, name: str, attributes: dict[str, AttributeValue]) -> Iterator[Span]:
    """A span of what happens inside; an error leaves its code there, and passes."""
    with tracer.start_as_current_span(
        name, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield span
        except Exception as error:
            is_known = isinstance(error, RelevoError)
            span.set_attribute("error.type", error.code if is_known else type(error).__name__)  # type: ignore[attr-defined]
            if not is_known or error.http_status >= 500:  # type: ignore[attr-defined]
                span.set_status(StatusCode.ERROR)
            raise


def _note(span: Span, status: int) -> None:
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_attribute("error.type", str(status))
        span.set_status(StatusCode.ERROR)
