"""What an endpoint says of itself: its state, its OpenAPI document, and what MLflow's own client asks first."""

from __future__ import annotations

import contextlib
from importlib.metadata import version as installed
from typing import Any

import msgspec

from relevo.errors import Unavailable
from relevo.platform.encoding import to_json
from relevo.runtimes.exchange import Reply
from relevo.serving.calls import Call
from relevo.serving.invocation import Invocations
from relevo.serving.live import LiveEndpoint
from relevo.serving.live_endpoints import LiveEndpoints
from relevo.serving.openapi import OpenApi

_TEXT = b"text/plain; charset=utf-8"
_encode = msgspec.json.Encoder().encode


class Descriptions:
    """Answers what callers ask of an endpoint before they ask for predictions. Belongs to the event loop.

    Args:
        endpoints: What is live here.
        invocations: Loads the version that answers, when it rests.
        openapi: The documents.
    """

    def __init__(self, endpoints: LiveEndpoints, invocations: Invocations, openapi: OpenApi) -> None:
        self._endpoints = endpoints
        self._invocations = invocations
        self._openapi = openapi

    async def describe(self, call: Call) -> Reply:
        """The endpoint's signature, its versions here, its split and its shadow."""
        endpoint = self._endpoints.find(call.name)
        with contextlib.suppress(Unavailable):  # then its state says so
            await self._invocations.rouse(endpoint)
        return Reply(_encode(_description(endpoint)))

    async def document(self, call: Call) -> Reply:
        """The OpenAPI document of the version that answers.

        Raises:
            Unavailable: None does.
        """
        endpoint = self._endpoints.find(call.name)
        await self._invocations.rouse(endpoint)
        return Reply(self._openapi.of(endpoint))

    async def ping(self, call: Call) -> Reply:
        """200 when a version answers.

        Raises:
            Unavailable: None does.
        """
        endpoint = self._endpoints.find(call.name)
        await self._invocations.rouse(endpoint)
        endpoint.first()
        return Reply(b"\n", _TEXT)

    async def version(self, call: Call) -> Reply:
        """The version of MLflow whose client is served."""
        self._endpoints.find(call.name)
        return Reply(installed("mlflow").encode(), _TEXT)


def _description(endpoint: LiveEndpoint) -> dict[str, Any]:
    champion = endpoint.champion()
    route = endpoint.route
    facts = ("revision", "arms", "shadow", "effective_event_at")
    return {
        "endpoint": endpoint.name,
        "log": endpoint.settings.log,
        "event_at": endpoint.now(),
        "is_replay": endpoint.replayed_at is not None,
        "signature": None if champion is None else to_json(champion.signature),
        "versions": {str(version): state for version, state in sorted(endpoint.states.items())},
        "route": None if route is None else {name: to_json(getattr(route, name)) for name in facts},
    }
