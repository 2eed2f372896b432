"""The routes of the Open Inference Protocol V2: health, metadata, readiness and inference under ``/v2``."""

from __future__ import annotations

from importlib.metadata import version as installed
from typing import Any

import msgspec

from relevo.errors import NotAllowed, NotFound, RelevoError, Unavailable
from relevo.identity.model import Permission, Role
from relevo.runtimes import tensors
from relevo.runtimes.exchange import Question, Reply
from relevo.runtimes.inference import PREDICTION_IDS, PREDICTIONS, InferenceV2
from relevo.runtimes.model import Signature
from relevo.runtimes.requests import Layout
from relevo.serving.calls import Call, WrongMethod, addressed, number, read_body, require
from relevo.serving.invocation import Invocations
from relevo.serving.live import LiveEndpoint
from relevo.serving.live_endpoints import LiveEndpoints

#: Routes below ``/v2``; what stands in capitals is any name.
ROUTES = (
    "GET /v2, GET /v2/health/live, GET /v2/health/ready, POST /v2/repository/index, GET /v2/models/NAME, "
    "GET /v2/models/NAME/ready, GET /v2/models/NAME/config, POST /v2/models/NAME/infer"
)

_PLATFORM = "relevo"
_EXTENSIONS = ["binary_tensor_data", "model_repository", "model_configuration"]
_READING = (Permission.READ, Permission.PREDICT)
_encode = msgspec.json.Encoder().encode


class InferenceProtocol:
    """Answers what stands under ``/v2``. Belongs to the event loop.

    Args:
        endpoints: What is live here; an endpoint is a model of the protocol.
        invocations: Answers requests for predictions.
    """

    def __init__(self, endpoints: LiveEndpoints, invocations: Invocations) -> None:
        self._endpoints = endpoints
        self._invocations = invocations

    async def reply(self, method: str, path: str, call: Call, *, is_draining: bool) -> Reply:
        """The answer to a request of this path, whose ``call`` names no endpoint yet.

        Raises:
            RelevoError: As the routes of ``/endpoints`` do.
        """
        match path.removesuffix("/").split("/")[2:]:
            case []:
                _check(path, method, "GET", call)
                return _json({"name": _PLATFORM, "version": installed("relevo"), "extensions": _EXTENSIONS})
            case ["health", "ready"]:
                _check(path, method, "GET", call)
                if is_draining:
                    raise Unavailable("This gateway worker is about to stop.")
                return _json({"ready": True})
            case ["repository", "index"]:
                _check(path, method, "POST", call)
                return _json(self._index())
            case ["models", name, "versions", version, *action]:
                return await self._model(method, path, call, name, version.encode("utf-8", "replace"), action)
            case ["models", name, *action]:
                return await self._model(method, path, call, name, None, action)
        raise _nothing(path)

    async def _model(
        self, method: str, path: str, call: Call, name: str, version: bytes | None, action: list[str]
    ) -> Reply:
        match action:
            case ["infer"]:
                _check(path, method, "POST", call, Permission.PREDICT)
                return await self._infer(call, self._endpoints.find(name), version)
            case [] | ["ready"] | ["config"]:
                _check(path, method, "GET", call)
                endpoint = self._endpoints.find(name)
                one = None if version is None else number(version, "model_version", "a version's number", 9)
                await self._invocations.rouse(endpoint, one)
                signature = (endpoint.first() if one is None else endpoint.addressed(one)).signature
                if action == ["ready"]:
                    return _json({"name": name, "ready": True})
                if action == ["config"]:
                    return _json(_config(name, signature, endpoint.limits.rows))
                return _json(_metadata(endpoint, signature))
        raise _nothing(path)

    async def _infer(self, call: Call, endpoint: LiveEndpoint, version: bytes | None) -> Reply:
        if call.principal.role is Role.LOAD_TEST:
            raise NotAllowed("A load test's token asks under /endpoints alone.")
        if version is None:
            version = call.headers.get(b"x-relevo-version")
        one = None if version is None else addressed(call.principal, version, "model_version")
        length = call.headers.get(b"inference-header-content-length")
        field = "inference-header-content-length"
        json_bytes = None if length is None else number(length, field, "a number of bytes", 12)
        body = await read_body(call, endpoint.limits)
        question = Question(body, json_bytes, endpoint.name, endpoint.limits.rows)
        return await self._invocations.answer(endpoint, InferenceV2, question, one)

    def _index(self) -> list[dict[str, str]]:
        return [
            {
                "name": endpoint.name,
                "version": str(version),
                "state": "READY" if version in endpoint.versions else "UNAVAILABLE",
                "reason": "" if version in endpoint.versions else state,
            }
            for endpoint in self._endpoints
            for version, state in sorted(endpoint.states.items())
        ]


def refusal(error: RelevoError) -> bytes:
    """The body of an error in the protocol's shape, where ``error`` is text."""
    hint = error.hint
    text = error.message if hint is None or hint in error.message else f"{error.message} {hint}"
    return _encode({"error": text})


def _check(path: str, method: str, expected: str, call: Call, *permissions: Permission) -> None:
    if method != expected:
        raise WrongMethod(path, method, expected)
    require(call.principal, *(permissions or _READING))


def _nothing(path: str) -> NotFound:
    return NotFound(f"There is nothing at {path[:200]}.", hint=f"The gateway has {ROUTES}.")


def _metadata(endpoint: LiveEndpoint, signature: Signature) -> dict[str, Any]:
    return {
        "name": endpoint.name,
        "versions": [str(version) for version in sorted(endpoint.versions)],
        "platform": _PLATFORM,
        "inputs": [
            {"name": name, "datatype": tensors.DATATYPES[column.type][0], "shape": [-1]}
            for name, column in Layout.of(signature).columns.items()
        ],
        "outputs": [
            {"name": PREDICTIONS, "datatype": "FP64", "shape": [-1, *_classes(signature)]},
            {"name": PREDICTION_IDS, "datatype": tensors.BYTES, "shape": [-1]},
        ],
    }


def _config(name: str, signature: Signature, max_rows: int) -> dict[str, Any]:
    """The model's configuration as Triton writes it. ``optional``: a view or a transform fills the input."""
    inputs = Layout.of(signature).columns.values()
    asked = {column.name for column in signature.inputs if column.is_asked}
    return {
        "name": name,
        "platform": _PLATFORM,
        "backend": _PLATFORM,
        "max_batch_size": max_rows,
        "input": [
            {
                "name": column.name,
                "data_type": _triton(tensors.DATATYPES[column.type][0]),
                "dims": [1],
                "optional": column.name not in asked,
            }
            for column in inputs
        ],
        "output": [
            {"name": PREDICTIONS, "data_type": "TYPE_FP64", "dims": _classes(signature) or [1]},
            {"name": PREDICTION_IDS, "data_type": "TYPE_STRING", "dims": [1]},
        ],
    }


def _classes(signature: Signature) -> list[int]:
    return [len(signature.classes)] if len(signature.classes) > 2 else []


def _triton(datatype: str) -> str:
    return "TYPE_STRING" if datatype == tensors.BYTES else f"TYPE_{datatype}"


def _json(value: Any) -> Reply:
    return Reply(_encode(value))
