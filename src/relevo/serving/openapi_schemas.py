"""What an endpoint answers, takes as labels, and speaks by the Open Inference Protocol, as JSON Schema."""

from __future__ import annotations

from typing import Any

from relevo.runtimes import tensors
from relevo.runtimes.inference import OUTPUTS
from relevo.runtimes.json_schema import Schema
from relevo.runtimes.model import Link, Signature
from relevo.runtimes.requests import MAX_REQUEST_ID, Layout


def answers(signature: Signature) -> Schema:
    """Predictions, reasons, and the two shapes of an error."""
    classes = len(signature.classes)
    number: Schema = {"type": "number", "format": "double"}
    many: Schema = {"type": "array", "items": number, "minItems": classes, "maxItems": classes}
    one = {**(many if classes > 2 else number), "description": _said(signature)}
    row = {"prediction": one, "base": one, "contributions": {"type": "object", "additionalProperties": one}}
    version = {"type": "integer", "description": "The version that answered."}
    ids = {"type": "array", "items": {"type": "string"}, "description": "One a row: labels name it."}
    text = {"type": ["string", "null"]}
    error = {"code": {"type": "string"}, "message": {"type": "string"}, "field": text, "hint": text}
    return {
        "Prediction": _object(predictions={"type": "array", "items": one}, version=version, prediction_ids=ids),
        "Explanations": _object(
            explanations={"type": "array", "items": _object(**row)},
            link={"enum": [link.value for link in Link]},
            version=version,
        ),
        "Error": _object(error=_object(**error)),
        "InferenceError": _object(error={"type": "string"}),
    }


def _said(signature: Signature) -> str:
    if not signature.classes:
        return "The model's number."
    if len(signature.classes) == 2:
        return f"The probability of {signature.classes[1]}."
    return f"The probabilities of {', '.join(signature.classes)}."


def labels(signature: Signature, max_labels: int) -> Schema:
    """Outcomes, and what became of them."""
    identity = {"type": "string", "description": "As it came with the prediction."}
    known_at = {"type": ["string", "null"], "format": "date-time", "description": "Event time; left out, it is now."}
    value: Schema = {
        "type": ["number", "boolean"],
        "description": "What came out: a number, or true and false as 1 and 0.",
    }
    if signature.classes:
        value = {"type": ["string", "number", "boolean"], "description": "The class, by its name or its place."}
    known = {"prediction_id": identity, "known_at": known_at}
    outcome = {**known, "value": value, "no_outcome": {"const": False}}
    none = {**known, "no_outcome": {"const": True}, "value": {"type": "null"}}
    kinds = [
        {"type": "object", "properties": fields, "required": ["prediction_id", name], "additionalProperties": False}
        for fields, name in ((outcome, "value"), (none, "no_outcome"))
    ]
    ids = {"type": "array", "items": {"type": "string"}}
    count = {"type": "integer", "minimum": 0}
    many = {"type": "array", "items": {"anyOf": kinds}, "maxItems": max_labels}
    correct = {"type": "boolean", "default": False, "description": "Another value becomes the next revision."}
    return {
        "Labels": {**_object(labels=many, correct=correct), "required": ["labels"]},
        "LabelResult": _object(accepted=count, duplicates=count, conflicts=ids, unknown=ids),
    }


def inference(signature: Signature) -> Schema:
    """Requests and answers of the Open Inference Protocol; what binary parts add stands in its own specification."""
    columns = Layout.of(signature).columns
    datatypes = sorted({name for column in columns.values() for name in tensors.DATATYPES[column.type]})
    shape = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "maxItems": 2}
    tensor = {"name": {"type": "string"}, "shape": shape, "datatype": {"enum": datatypes}}
    described = f"One tensor a column ({', '.join(columns)}), of shape [n] or [n, 1]."
    inputs = {"type": "array", "items": _open(**tensor), "minItems": 1, "description": described}
    output = _open(name={"type": "string"}, shape=shape, datatype={"type": "string"})
    identity = {"type": ["string", "null"], "maxLength": MAX_REQUEST_ID}
    asked = {"type": "array", "items": _open(name={"enum": list(OUTPUTS)})}
    return {
        "Infer": {**_open(inputs=inputs, id=identity, outputs=asked), "required": ["inputs"]},
        "Inferred": _open(
            model_name={"type": "string"}, model_version={"type": "string"}, outputs={"type": "array", "items": output}
        ),
    }


def _open(**properties: Any) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _object(**properties: Any) -> Schema:
    return {**_open(**properties), "additionalProperties": False}
