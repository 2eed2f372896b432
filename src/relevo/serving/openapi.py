"""The OpenAPI document of an endpoint: its routes, with the very schemas of what its version takes and answers."""

from __future__ import annotations

import msgspec

from relevo.errors import (
    Conflict,
    Invalid,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    Overloaded,
    RelevoError,
    TooLarge,
    Unavailable,
)
from relevo.platform.encoding import digest
from relevo.runtimes.json_schema import RequestSchemas, Schema
from relevo.runtimes.model import Signature
from relevo.serving import explaining, languages
from relevo.serving import openapi_schemas as schemas
from relevo.serving.calls import TooSlow, WrongMethod, WrongType
from relevo.serving.deadlines import DeadlineExceeded
from relevo.serving.invocation import VersionFailed
from relevo.serving.limits import Limits
from relevo.serving.live import LiveEndpoint

_SCHEMAS = "#/components/schemas"
#: What any request may be refused with, and what one with a body may be.
_REFUSALS: tuple[type[RelevoError], ...] = (NotAuthenticated, NotAllowed, NotFound, WrongMethod, Overloaded)
_OF_BODIES: tuple[type[RelevoError], ...] = (Invalid, TooSlow, TooLarge, WrongType, DeadlineExceeded)
_FAILURES: tuple[type[RelevoError], ...] = (VersionFailed, RelevoError)
_encode = msgspec.json.Encoder().encode


class OpenApi:
    """The documents of this worker's endpoints, each made when it is first asked for. Belongs to the event loop."""

    def __init__(self) -> None:
        self._documents: dict[str, tuple[tuple[Signature, Limits], bytes]] = {}

    def of(self, endpoint: LiveEndpoint) -> bytes:
        """The document by the signature of the version that answers, and by the limits of the endpoint.

        Raises:
            Unavailable: No version that the route names is loaded.
        """
        made_of = endpoint.first().signature, endpoint.limits
        known = self._documents.get(endpoint.name)
        if known is not None and known[0] == made_of:
            return known[1]
        made = _encode(document(endpoint.name, *made_of))
        self._documents[endpoint.name] = (made_of, made)
        return made


def document(name: str, signature: Signature, limits: Limits) -> Schema:
    """The OpenAPI 3.1 document of the endpoint ``name``. Its version changes with the signature, and only then."""
    requests = RequestSchemas(signature, _SCHEMAS)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": name,
            "version": digest(signature)[:12],
            "description": f"Predictions of {name}, a {signature.task.value} model, and labels for them. A body has at "
            f"most {limits.body_bytes:,} bytes, and may come with Content-Encoding gzip or deflate.",
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"basic": []}],
        "paths": {**_paths(name, requests.example()), **_inference_paths(name)},
        "components": {
            "schemas": {
                **requests.shared(),
                "Predict": requests.request(limits.rows),
                "Explain": requests.request(explaining.MAX_ROWS),
                **schemas.answers(signature),
                **schemas.labels(signature, limits.rows),
                **schemas.inference(signature),
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "Any user, with the token as the password.",
                },
            },
        },
    }


def _paths(name: str, example: Schema) -> Schema:
    base = f"/endpoints/{name}"
    labelled = {
        "200": _json("Every label was accepted, or is there already.", _ref("LabelResult")),
        "400": _refused([Invalid], "The body is wrong, or an id was not issued here.", _ref("LabelResult")),
        "409": _refused([Conflict], "Another value is there for an id.", _ref("LabelResult")),
    }
    return {
        base: {"get": _operation("describe", "Signature, loaded versions, route, event time", {"type": "object"})},
        f"{base}/invocations": {
            "post": _operation(
                "predict", "Predict", _ref("Prediction"), parameters=[_VERSION, _KEY], body="Predict", example=example
            )
        },
        f"{base}/explain": {
            "post": _operation(
                "explain",
                "Predict, and say what each input adds",
                _ref("Explanations"),
                parameters=[_VERSION],
                body="Explain",
                example=example,
            )
        },
        f"{base}/labels": {"post": _operation("label", "Take outcomes", {}, body="Labels", answers=labelled)},
        f"{base}/ping": {"get": _operation("ping", "Whether a version answers", None)},
        f"{base}/version": {"get": _operation("version", "The version of MLflow whose client is served", None)},
        f"{base}/openapi.json": {"get": _operation("openapi", "This document", {"type": "object"})},
    }


def _inference_paths(name: str) -> Schema:
    base = f"/v2/models/{name}"
    ready = {"type": "object", "properties": {"name": {"const": name}, "ready": {"const": True}}, "required": ["ready"]}
    summary = "Predict, by the Open Inference Protocol V2"
    return {
        base: {"get": _operation("model", "Versions, inputs and outputs", {"type": "object"}, is_inference=True)},
        f"{base}/ready": {"get": _operation("ready", "Whether a version answers", ready, is_inference=True)},
        f"{base}/config": {
            "get": _operation("config", "The same as Triton writes it", {"type": "object"}, is_inference=True)
        },
        f"{base}/infer": {
            "post": _operation(
                "infer", summary, _ref("Inferred"), parameters=[_VERSION], body="Infer", is_inference=True
            )
        },
    }


def _operation(
    name: str,
    summary: str,
    answer: Schema | None,
    *,
    parameters: list[Schema] | None = None,
    body: str | None = None,
    example: Schema | None = None,
    answers: Schema | None = None,
    is_inference: bool = False,
) -> Schema:
    """One route. ``answer`` is what 200 brings; None: text."""
    refusals: list[type[RelevoError]] = [
        *_REFUSALS,
        *(_OF_BODIES if body or parameters else ()),
        *_FAILURES,
        Unavailable,
    ]
    by_status: dict[int, list[type[RelevoError]]] = {}
    for refusal in refusals:
        by_status.setdefault(refusal.http_status, []).append(refusal)
    good = (
        _json("The answer.", answer) if answer is not None else {"description": "Text.", "content": {"text/plain": {}}}
    )
    operation: Schema = {
        "operationId": name,
        "summary": summary,
        "responses": {
            "200": good,
            **{str(status): _refused(kinds, is_inference=is_inference) for status, kinds in sorted(by_status.items())},
            **(answers or {}),
        },
    }
    if parameters:
        operation["parameters"] = parameters
    if body:
        content: Schema = {"schema": _ref(body)}
        if example is not None:
            content["example"] = example
        operation["requestBody"] = {"required": True, "content": {"application/json": content}}
        if body == "Predict":
            operation["requestBody"]["description"] = (
                f"By Content-Type: {languages.EXPECTED}; the schema is that of JSON."
            )
    return operation


_VERSION: Schema = {
    "name": "X-Relevo-Version",
    "in": "header",
    "description": "Asks one version, whatever the route says. It needs the permission address_version.",
    "schema": {"type": "integer", "minimum": 0, "maximum": 999_999_999},
}
_KEY: Schema = {
    "name": "X-Relevo-Key",
    "in": "header",
    "description": "While a canary takes a share: requests with the same key are answered by the same version.",
    "schema": {"type": "string"},
}


def _refused(
    kinds: list[type[RelevoError]],
    description: str | None = None,
    other: Schema | None = None,
    *,
    is_inference: bool = False,
) -> Schema:
    """The answer of a status that these errors share; ``other`` comes with the same status."""
    said = " ".join((kind.__doc__ or "").partition("\n")[0] for kind in kinds)
    schema: Schema = _ref("InferenceError")
    if not is_inference:
        codes = [kind.code for kind in kinds]
        schema = {"allOf": [_ref("Error"), {"properties": {"error": {"properties": {"code": {"enum": codes}}}}}]}
    answer = _json(description or said, {"anyOf": [schema, other]} if other else schema)
    if kinds[0] in (Unavailable, Overloaded):
        answer["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    return answer


def _ref(name: str) -> Schema:
    return {"$ref": f"{_SCHEMAS}/{name}"}


def _json(description: str, schema: Schema) -> Schema:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
