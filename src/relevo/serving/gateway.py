"""The gateway's ASGI application: who may, what is asked, and one JSON shape for every refusal.

Routes: ``POST /endpoints/NAME/invocations``, ``.../explain`` and ``.../labels``, ``GET /endpoints/NAME``,
``GET /metrics``, and ``GET /health``, which alone is open. Plain ASGI without a framework: its routing and parsing
would cost more than the prediction.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from relevo.errors import (
    Invalid,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    Overloaded,
    RelevoError,
    TooLarge,
    Unavailable,
)
from relevo.identity.model import Permission, Principal, Role
from relevo.platform.encoding import to_json
from relevo.runtimes.exchange import MlflowJson, Question, Reply
from relevo.serving import metrics
from relevo.serving.callers import Callers
from relevo.serving.explaining import Explanations
from relevo.serving.invocation import Invocations
from relevo.serving.labelling import Labelling
from relevo.serving.live import LiveEndpoint, LiveEndpoints
from relevo.serving.watch import Tokens

logger = logging.getLogger(__name__)

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_CLOSE = (b"connection", b"close")
_RETRY = (b"retry-after", b"1")
_encode = msgspec.json.Encoder().encode
_ROUTES = (
    "POST /endpoints/NAME/invocations, POST /endpoints/NAME/explain, POST /endpoints/NAME/labels, "
    "GET /endpoints/NAME, /metrics, /health"
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request, and all together, may take."""

    body_bytes: int = 10_000_000
    rows: int = 10_000
    in_flight: int = 1_000
    body_seconds: float = 30.0


class WrongMethod(RelevoError):
    """The path exists, and takes another method."""

    code = "wrong_method"
    http_status = 405


class TooSlow(RelevoError):
    """The body did not arrive in time."""

    code = "too_slow"
    http_status = 408


class Call(msgspec.Struct, frozen=True):
    """One request to a route: who asks, for which endpoint, with which headers and body to come."""

    principal: Principal
    name: str
    headers: dict[bytes, bytes]
    receive: Receive


#: What a route needs of the caller: any one of these.
_Permissions = tuple[Permission, ...]
_Handler = Callable[[Call], Awaitable[Reply]]


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

    Attributes:
        is_draining: Whether connections are to be closed after their answer.
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
    ) -> None:
        self._worker = worker
        self._endpoints = endpoints
        self._invocations = invocations
        self._explanations = explanations
        self._labelling = labelling
        self._callers = Callers(read_tokens)
        self._read_metrics = read_metrics
        self._limits = limits
        self._in_flight = 0
        self._actions: dict[str, tuple[str, _Permissions, _Handler]] = {
            "invocations": ("POST", (Permission.PREDICT,), self._invoke),
            "explain": ("POST", (Permission.PREDICT,), self._explain),
            "labels": ("POST", (Permission.LABEL,), self._label),
            "": ("GET", (Permission.READ, Permission.PREDICT), self._describe),
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
            if self._in_flight > self._limits.in_flight:
                raise Overloaded(f"{self._limits.in_flight:,} requests are in flight; try again later.")
            reply = await self._reply(scope, receive)
        except RelevoError as error:
            reply = _refusal(error)
        except Exception:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            reply = _refusal(RelevoError("The gateway failed on this request; its log says why."))
        finally:
            self._in_flight -= 1
        body = reply.body
        headers = [(b"content-type", reply.content_type), (b"content-length", b"%d" % len(body)), *reply.headers]
        if self.is_draining:
            headers.append(_CLOSE)
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _reply(self, scope: Scope, receive: Receive) -> Reply:
        path: str = scope["path"]
        if path == "/health":
            return self._health()
        headers = dict(scope["headers"])
        authorization = headers.get(b"authorization")
        principal = self._callers.find(authorization) or await self._callers.find_after_reading(authorization)
        name = action = ""
        if path.startswith("/endpoints/"):
            name, _, action = path[11:].partition("/")
        found = self._actions.get(action) if name else ("GET", (Permission.READ,), self._metrics)
        if found is None or not (name or path == "/metrics"):
            raise NotFound(f"There is nothing at {path[:200]}.", hint=f"The gateway has {_ROUTES}.")
        method, permissions, handle = found
        if scope["method"] != method:
            raise WrongMethod(f"{path[:200]} takes {method}, got {scope['method']}.")
        _require(principal, *permissions)
        return await handle(Call(principal, name, headers, receive))

    async def _explain(self, call: Call) -> Reply:
        addressed = _addressed(call)
        endpoint = self._endpoints.find(call.name)
        question = Question(await self._body(call))
        await self._invocations.rouse(endpoint, addressed)
        return await self._explanations.answer(endpoint, question, addressed)

    async def _invoke(self, call: Call) -> Reply:
        addressed = _addressed(call)
        endpoint = self._endpoints.find(call.name)
        question = Question(await self._body(call))
        if call.principal.role is Role.LOAD_TEST:
            return await self._invocations.rehearse(endpoint, MlflowJson, question, _required(addressed))
        key = call.headers.get(b"x-relevo-key") if endpoint.sole is None else None
        return await self._invocations.answer(endpoint, MlflowJson, question, addressed, key)

    async def _label(self, call: Call) -> Reply:
        endpoint = self._endpoints.find(call.name)
        await self._invocations.rouse(endpoint)
        status, answer = await self._labelling.record(endpoint, await self._body(call))
        return Reply(answer, status=status)

    async def _describe(self, call: Call) -> Reply:
        endpoint = self._endpoints.find(call.name)
        with contextlib.suppress(Unavailable):  # then its state says so
            await self._invocations.rouse(endpoint)
        return Reply(_encode(_description(endpoint)))

    async def _metrics(self, call: Call) -> Reply:
        return Reply(await self._read_metrics(), metrics.CONTENT_TYPE)

    def _health(self) -> Reply:
        status = "draining" if self.is_draining else "ok"
        body = _encode({"status": status, "worker": self._worker})
        return Reply(body, status=503 if self.is_draining else 200)

    async def _body(self, call: Call) -> bytes:
        """The whole body; one that is too large is refused before it is read."""
        limit, length = self._limits.body_bytes, call.headers.get(b"content-length")
        if length is not None and int(length) > limit:
            raise TooLarge(f"A body has at most {limit:,} bytes, got {int(length):,}.")
        message = await call.receive()
        body: bytes = message.get("body", b"")
        if message.get("more_body"):
            body = await self._rest_of_body(call.receive, body)
        if message["type"] == "http.disconnect":
            raise Invalid("The connection was closed before the body had arrived.")
        return body

    async def _rest_of_body(self, receive: Receive, start: bytes) -> bytes:
        parts, size = [start], len(start)
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Invalid("The connection was closed before the body had arrived.")
                    parts.append(message["body"])
                    size += len(message["body"])
                    if size > self._limits.body_bytes:
                        raise TooLarge(f"A body has at most {self._limits.body_bytes:,} bytes.")
                    if not message["more_body"]:
                        return b"".join(parts)
        except TimeoutError:
            raise TooSlow(f"The body did not arrive within {self._limits.body_seconds:g} s.") from None


def _refusal(error: RelevoError) -> Reply:
    return Reply(_encode(error.as_json()), headers=_headers(error), status=error.http_status)


def _headers(error: RelevoError) -> tuple[tuple[bytes, bytes], ...]:
    if isinstance(error, Unavailable | Overloaded):
        return (_RETRY,)
    if isinstance(error, NotAuthenticated):
        return ((b"www-authenticate", b"Bearer"),)
    if isinstance(error, TooSlow):
        return (_CLOSE,)
    return ()


def _require(principal: Principal, *permissions: Permission) -> None:
    """Raises NotAllowed unless the principal has one of the permissions."""
    for permission in permissions:
        if principal.may(permission):
            return
    raise NotAllowed(f"{principal.name} ({principal.role}) lacks the permission {permissions[-1]}.")


def _addressed(call: Call) -> int | None:
    """The version that the caller names by header; None leaves it to the route."""
    header = call.headers.get(b"x-relevo-version")
    if header is None:
        return None
    _require(call.principal, Permission.ADDRESS_VERSION)
    if not header.isdigit() or len(header) > 9:
        shown = header[:40].decode("latin-1")
        raise Invalid(f"Expected a version's number, got {shown!r}.", field="x-relevo-version")
    return int(header)


def _required(addressed: int | None) -> int:
    """The version that a load test names: its token is for no other request."""
    if addressed is None:
        raise NotAllowed("A load test's token asks one version.", hint="Send the header X-Relevo-Version.")
    return addressed


def _description(endpoint: LiveEndpoint) -> dict[str, Any]:
    """What a caller needs to know of an endpoint: its signature, its versions here, its split."""
    champion = endpoint.champion()
    route = endpoint.route
    return {
        "endpoint": endpoint.name,
        "log": endpoint.settings.log,
        "event_at": endpoint.now(),
        "is_replay": endpoint.replayed_at is not None,
        "signature": None if champion is None else to_json(champion.signature),
        "versions": {str(version): state for version, state in sorted(endpoint.states.items())},
        "route": None
        if route is None
        else {"revision": route.revision, "arms": to_json(route.arms), "effective_event_at": route.effective_event_at},
    }
