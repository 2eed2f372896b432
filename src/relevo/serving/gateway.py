"""The gateway's ASGI application: who may, what is asked, and one JSON shape for every refusal.

Routes: ``POST /endpoints/NAME/invocations``, ``POST /endpoints/NAME/labels``, ``GET /endpoints/NAME``,
``GET /metrics``, and ``GET /health``, which alone is open. Plain ASGI without a framework: its routing and parsing
would cost more than the prediction.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
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
from relevo.identity.model import Permission, Principal
from relevo.platform.encoding import to_json
from relevo.serving import metrics
from relevo.serving.invocation import Invocations
from relevo.serving.labelling import Labelling
from relevo.serving.live import LiveEndpoint, LiveEndpoints
from relevo.serving.watch import Tokens

logger = logging.getLogger(__name__)

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_JSON = b"application/json"
_CLOSE = (b"connection", b"close")
_RETRY = (b"retry-after", b"1")
_encode = msgspec.json.Encoder().encode
_ROUTES = "POST /endpoints/NAME/invocations, POST /endpoints/NAME/labels, GET /endpoints/NAME, /metrics, /health"


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


class Gateway:
    """The application. Belongs to the event loop.

    Args:
        worker: Number of this process among those that share the socket.
        endpoints: What is live here.
        invocations: Answers requests for predictions.
        labelling: Takes labels.
        read_tokens: Reads the accepted tokens anew.
        read_metrics: The metrics text over all workers.
        limits: Past these, requests are refused.

    Attributes:
        tokens: The accepted tokens as last read.
        is_draining: Whether connections are to be closed after their answer.
    """

    def __init__(
        self,
        worker: int,
        endpoints: LiveEndpoints,
        invocations: Invocations,
        labelling: Labelling,
        read_tokens: Callable[[], Awaitable[Tokens]],
        read_metrics: Callable[[], Awaitable[bytes]],
        limits: Limits,
    ) -> None:
        self._worker = worker
        self._endpoints = endpoints
        self._invocations = invocations
        self._labelling = labelling
        self._read_tokens = read_tokens
        self._read_metrics = read_metrics
        self._limits = limits
        self._in_flight = 0
        self.tokens: Tokens = {}
        self.is_draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        if scope["type"] != "http":
            raise ValueError(f"expected an HTTP request, got {scope['type']}")
        self._in_flight += 1
        status, content_type = 200, _JSON
        extra: Sequence[tuple[bytes, bytes]] = ()
        try:
            if self._in_flight > self._limits.in_flight:
                raise Overloaded(f"{self._limits.in_flight:,} requests are in flight; try again later.")
            status, content_type, body = await self._answer(scope, receive)
        except RelevoError as error:
            status, body = error.http_status, _encode(error.as_json())
            extra = _headers(error)
        except Exception:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            status, body = 500, _encode(RelevoError("The gateway failed on this request; its log says why.").as_json())
        finally:
            self._in_flight -= 1
        headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *extra]
        if self.is_draining:
            headers.append(_CLOSE)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[int, bytes, bytes]:
        path: str = scope["path"]
        if path == "/health":
            return self._health()
        authorization = version = length = None
        for name, value in scope["headers"]:
            if name == b"authorization":
                authorization = value
            elif name == b"content-length":
                length = value
            elif name == b"x-relevo-version":
                version = value
        principal = self._principal(authorization) or await self._principal_after_reading(authorization)
        if not path.startswith("/endpoints/"):
            if path != "/metrics":
                raise NotFound(f"There is nothing at {path[:200]}.", hint=f"The gateway has {_ROUTES}.")
            _require_method(scope, "GET")
            _require(principal, Permission.READ)
            return 200, metrics.CONTENT_TYPE, await self._read_metrics()
        name, _, action = path[11:].partition("/")
        if action == "invocations":
            _require_method(scope, "POST")
            _require(principal, Permission.PREDICT)
            addressed = None if version is None else _addressed(principal, version)
            endpoint = self._endpoints.find(name)
            content = await self._body(receive, length)
            return 200, _JSON, await self._invocations.answer(endpoint, content, addressed)
        if action == "labels":
            _require_method(scope, "POST")
            _require(principal, Permission.LABEL)
            endpoint = self._endpoints.find(name)
            status, answer = await self._labelling.record(endpoint, await self._body(receive, length))
            return status, _JSON, answer
        if action:
            raise NotFound(f"There is nothing at {path[:200]}.", hint=f"The gateway has {_ROUTES}.")
        _require_method(scope, "GET")
        if not principal.may(Permission.READ):
            _require(principal, Permission.PREDICT)
        return 200, _JSON, _encode(_description(self._endpoints.find(name)))

    def _health(self) -> tuple[int, bytes, bytes]:
        status = "draining" if self.is_draining else "ok"
        return 503 if self.is_draining else 200, _JSON, _encode({"status": status, "worker": self._worker})

    def _principal(self, authorization: bytes | None) -> Principal | None:
        """Whose the bearer token is; None when it is not among those last read."""
        if authorization is None or authorization[:7].lower() != b"bearer ":
            raise NotAuthenticated("A token is needed.", hint="Send the header Authorization: Bearer TOKEN.")
        found = self.tokens.get(hashlib.sha256(authorization[7:]).hexdigest())
        if found is None or (found[1] is not None and found[1] <= datetime.now(UTC)):
            return None
        return found[0]

    async def _principal_after_reading(self, authorization: bytes | None) -> Principal:
        """Whose the bearer token is, when it may have been made a moment ago."""
        self.tokens = await self._read_tokens()
        principal = self._principal(authorization)
        if principal is None:
            raise NotAuthenticated("The token is unknown, revoked or expired.", hint="`relevo token create` makes one.")
        return principal

    async def _body(self, receive: Receive, length: bytes | None) -> bytes:
        """The whole body; one that is too large is refused before it is read."""
        limit = self._limits.body_bytes
        if length is not None and int(length) > limit:
            raise TooLarge(f"A body has at most {limit:,} bytes, got {int(length):,}.")
        message = await receive()
        body: bytes = message.get("body", b"")
        if message.get("more_body"):
            body = await self._rest_of_body(receive, body)
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


def _headers(error: RelevoError) -> Sequence[tuple[bytes, bytes]]:
    if isinstance(error, Unavailable | Overloaded):
        return (_RETRY,)
    if isinstance(error, NotAuthenticated):
        return ((b"www-authenticate", b"Bearer"),)
    if isinstance(error, TooSlow):
        return (_CLOSE,)
    return ()


def _require(principal: Principal, permission: Permission) -> None:
    if not principal.may(permission):
        raise NotAllowed(f"{principal.name} ({principal.role}) lacks the permission {permission}.")


def _require_method(scope: Scope, method: str) -> None:
    if scope["method"] != method:
        raise WrongMethod(f"{scope['path'][:200]} takes {method}, got {scope['method']}.")


def _addressed(principal: Principal, header: bytes) -> int:
    _require(principal, Permission.ADDRESS_VERSION)
    if not header.isdigit() or len(header) > 9:
        shown = header[:40].decode("latin-1")
        raise Invalid(f"Expected a version's number, got {shown!r}.", field="x-relevo-version")
    return int(header)


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
