"""The gateway's ASGI application: who may, what is asked, and one JSON shape for every refusal.

Endpoints stand under ``/endpoints``, the Open Inference Protocol under ``/v2``. ``GET /health`` and
``GET /v2/health/live`` alone are open. Plain ASGI without a framework: its routing and parsing would cost more than the
prediction.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import msgspec

from relevo.errors import NotAllowed, NotAuthenticated, NotFound, Overloaded, RelevoError, Unavailable
from relevo.identity.model import Permission, Role
from relevo.runtimes.exchange import MlflowJson, Question, Reply
from relevo.serving import calls, inference_protocol, languages, metrics
from relevo.serving.callers import Callers
from relevo.serving.calls import (
    Call,
    Receive,
    Scope,
    Send,
    TooSlow,
    WrongMethod,
    read_body,
    require,
)
from relevo.serving.describing import Descriptions
from relevo.serving.explaining import Explanations
from relevo.serving.inference_protocol import InferenceProtocol
from relevo.serving.invocation import Invocations
from relevo.serving.labelling import Labelling
from relevo.serving.limits import Limits
from relevo.serving.live_endpoints import LiveEndpoints
from relevo.serving.openapi import OpenApi
from relevo.serving.protocol import WHOLE
from relevo.serving.rates import Rates
from relevo.serving.shedding import NO_ENDPOINT, Shedding
from relevo.serving.watch import Tokens

logger = logging.getLogger(__name__)

_CLOSE = (b"connection", b"close")
_encode = msgspec.json.Encoder().encode
_ROUTES = (
    "POST /endpoints/NAME/invocations, POST /endpoints/NAME/explain, POST /endpoints/NAME/labels, "
    "GET /endpoints/NAME, GET /endpoints/NAME/openapi.json, GET /endpoints/NAME/ping, GET /endpoints/NAME/version, "
    "/metrics, /health, " + inference_protocol.ROUTES
)


#: What a route needs of the caller: any one of these.
_Permissions = tuple[Permission, ...]
_Handler = Callable[[Call], Awaitable[Reply]]

_READING: _Permissions = (Permission.READ, Permission.PREDICT)


class Gateway:
    """The application. Belongs to the event loop.

    Args:
        worker: Number of this process among those that share the socket.
        endpoints: What is live here.
        invocations: Answers requests for predictions.
        explanations: Answers requests for reasons.
        labelling: Takes labels.
        read_tokens: Reads the accepted tokens anew.
        read_metrics: The metrics text over all workers.
        limits: Past these, requests are refused.
        rates: What the tokens with a rate have left.
        shedding: Counts those that are sent away.

    Attributes:
        is_draining: Whether this worker is about to stop.
    """

    def __init__(
        self,
        worker: int,
        endpoints: LiveEndpoints,
        invocations: Invocations,
        explanations: Explanations,
        labelling: Labelling,
        read_tokens: Callable[[], Awaitable[Tokens]],
        read_metrics: Callable[[], Awaitable[bytes]],
        limits: Limits,
        rates: Rates,
        shedding: Shedding,
    ) -> None:
        self._worker = worker
        self._endpoints = endpoints
        self._invocations = invocations
        self._explanations = explanations
        self._labelling = labelling
        self._callers = Callers(read_tokens, rates, shedding)
        self._read_metrics = read_metrics
        self._limits = limits
        self._shedding = shedding
        descriptions = Descriptions(endpoints, invocations, OpenApi())
        self._inference = InferenceProtocol(endpoints, invocations)
        self._in_flight = 0
        self._actions: dict[str, tuple[str, _Permissions, _Handler]] = {
            "invocations": ("POST", (Permission.PREDICT,), self._invoke),
            "explain": ("POST", (Permission.PREDICT,), self._explain),
            "labels": ("POST", (Permission.LABEL,), self._label),
            "": ("GET", _READING, descriptions.describe),
            "openapi.json": ("GET", _READING, descriptions.document),
            "ping": ("GET", _READING, descriptions.ping),
            "version": ("GET", _READING, descriptions.version),
        }
        self.is_draining = False

    def accept(self, tokens: Tokens) -> None:
        """Take over the accepted tokens as they were just read."""
        self._callers.accept(tokens)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        if scope["type"] != "http":
            raise ValueError(f"expected an HTTP request, got {scope['type']}")
        self._in_flight += 1
        try:
            if self._in_flight > self._limits.concurrency:
                message = f"{self._limits.concurrency:,} requests are in flight; try again later."
                raise self._shedding.refusal(NO_ENDPOINT, "concurrency", message)
            reply = await self._reply(scope, receive)
        except RelevoError as error:
            reply = _refusal(error, scope["path"])
        except Exception:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            reply = _refusal(RelevoError("The gateway failed on this request; its log says why."), scope["path"])
        finally:
            self._in_flight -= 1
        body = reply.body
        headers = [(b"content-type", reply.content_type), (b"content-length", b"%d" % len(body)), *reply.headers]
        send_whole = scope["extensions"].pop(WHOLE, None) if "extensions" in scope else None
        if send_whole is not None and send_whole(reply.status, headers, body):
            return
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _reply(self, scope: Scope, receive: Receive) -> Reply:
        path: str = scope["path"]
        if path == "/health":
            return self._health()
        if path == "/v2/health/live":
            return Reply(b'{"live":true}')
        headers = dict(scope["headers"])
        authorization = headers.get(b"authorization")
        principal = self._callers.find(authorization) or await self._callers.find_after_reading(authorization)
        name = action = ""
        if path.startswith("/endpoints/"):
            name, _, action = path[11:].partition("/")
        elif _is_inference(path):
            call = Call(principal, "", headers, receive)
            return await self._inference.reply(scope["method"], path, call, is_draining=self.is_draining)
        found = self._actions.get(action) if name else ("GET", (Permission.READ,), self._metrics)
        if found is None or not (name or path == "/metrics"):
            raise NotFound(f"There is nothing at {path[:200]}.", hint=f"The gateway has {_ROUTES}.")
        method, permissions, handle = found
        if scope["method"] != method:
            raise WrongMethod(path, scope["method"], method)
        require(principal, *permissions)
        return await handle(Call(principal, name, headers, receive))

    async def _explain(self, call: Call) -> Reply:
        addressed = _addressed(call)
        endpoint = self._endpoints.find(call.name)
        question = Question(await read_body(call, endpoint.limits))
        await self._invocations.rouse(endpoint, addressed)
        return await self._explanations.answer(endpoint, question, addressed)

    async def _invoke(self, call: Call) -> Reply:
        addressed = _addressed(call)
        endpoint = self._endpoints.find(call.name)
        language = languages.JSON.get(call.headers.get(b"content-type"))
        if language is None:
            language = await languages.find(call.headers)
        body = await read_body(call, endpoint.limits)
        question = Question(body) if language is MlflowJson else languages.question(call.headers, body, endpoint.limits)
        if call.principal.role is Role.LOAD_TEST:
            return await self._invocations.rehearse(endpoint, language, question, _required(addressed))
        key = call.headers.get(b"x-relevo-key") if endpoint.sole is None else None
        return await self._invocations.answer(endpoint, language, question, addressed, key)

    async def _label(self, call: Call) -> Reply:
        endpoint = self._endpoints.find(call.name)
        await self._invocations.rouse(endpoint)
        status, answer = await self._labelling.record(endpoint, await read_body(call, endpoint.limits))
        return Reply(answer, status=status)

    async def _metrics(self, call: Call) -> Reply:
        return Reply(await self._read_metrics(), metrics.CONTENT_TYPE)

    def _health(self) -> Reply:
        status = "draining" if self.is_draining else "ok"
        body = _encode({"status": status, "worker": self._worker})
        return Reply(body, status=503 if self.is_draining else 200)


def _refusal(error: RelevoError, path: str) -> Reply:
    body = inference_protocol.refusal(error) if _is_inference(path) else _encode(error.as_json())
    return Reply(body, headers=_headers(error), status=error.http_status)


def _is_inference(path: str) -> bool:
    return path == "/v2" or path.startswith("/v2/")


def _headers(error: RelevoError) -> tuple[tuple[bytes, bytes], ...]:
    if isinstance(error, Overloaded):
        return ((b"retry-after", b"%d" % error.retry_after_seconds),)
    if isinstance(error, Unavailable):
        return ((b"retry-after", b"1"),)
    if isinstance(error, NotAuthenticated):
        return ((b"www-authenticate", b"Bearer"),)
    if isinstance(error, WrongMethod):
        return ((b"allow", error.expected.encode()),)
    if isinstance(error, TooSlow):
        return (_CLOSE,)
    return ()


def _addressed(call: Call) -> int | None:
    """The version that the caller names by header; None leaves it to the route."""
    header = call.headers.get(b"x-relevo-version")
    return None if header is None else calls.addressed(call.principal, header, "x-relevo-version")


def _required(addressed: int | None) -> int:
    """The version that a load test names: its token is for no other request."""
    if addressed is None:
        raise NotAllowed("A load test's token asks one version.", hint="Send the header X-Relevo-Version.")
    return addressed
