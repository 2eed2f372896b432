"""The Open Inference Protocol V2, with its binary extension: one tensor a column, or one matrix of all inputs."""

from __future__ import annotations

import math
from itertools import chain
from typing import Annotated, Any, cast

import msgspec
import numpy as np

from relevo.errors import Invalid, TooLarge
from relevo.runtimes import tensors
from relevo.runtimes.decoders import Arranging, Decoded
from relevo.runtimes.exchange import Answer, Question, Reply
from relevo.runtimes.model import ColumnType, Signature
from relevo.runtimes.requests import MAX_REQUEST_ID, Layout, kind_of, unknown

PREDICTIONS = "predictions"
PREDICTION_IDS = "prediction_ids"
OUTPUTS = (PREDICTIONS, PREDICTION_IDS)

_NUMERIC = (ColumnType.FLOAT, ColumnType.INTEGER)
_BINARY = b"application/octet-stream"
_encode = msgspec.json.Encoder().encode


class _Tensor(msgspec.Struct, frozen=True):
    name: str
    shape: list[Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]]
    datatype: str
    parameters: dict[str, Any] = {}
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Output(msgspec.Struct, frozen=True):
    name: str
    parameters: dict[str, Any] = {}


class _Request(msgspec.Struct, frozen=True):
    inputs: list[_Tensor]
    id: str | None = None
    parameters: dict[str, Any] = {}
    outputs: list[_Output] = []


_decode = msgspec.json.Decoder(_Request).decode
_data = msgspec.json.Decoder().decode


class Inference(Decoded, frozen=True):
    """A request that fits the signature, and how it wants to be answered.

    Attributes:
        endpoint: The model's name in the answer.
        outputs: Names of the outputs to give, and whether as bytes.
    """

    endpoint: str
    outputs: tuple[tuple[str, bool], ...]


class InferenceV2:
    """The protocol for one signature."""

    def __init__(self, signature: Signature) -> None:
        self._layout = Layout.of(signature)
        self._arrange = Arranging(self._layout)
        self._inputs = signature.inputs
        self._takes_matrix = len(self._inputs) > 1 and all(column.type in _NUMERIC for column in self._inputs)
        self._shape = [len(signature.classes)] if len(signature.classes) > 2 else []

    def decode(self, question: Question) -> Inference:
        """One input tensor a column, of shape ``[n]`` or ``[n, 1]``; or one of shape ``[n, n_inputs]`` for all inputs.

        The matrix is taken when every input is a number; its columns stand in the signature's order.
        """
        header, binary = _parts(question)
        request = _read(header)
        if not request.inputs:
            raise Invalid("Expected at least one input, got none.", field="inputs")
        request_id = _request_id(request.id)
        outputs = _outputs(request)
        chunks = _chunks(request.inputs, binary)
        columns: dict[str, list[object]] = {}
        if self._is_matrix(request.inputs):
            rows = self._rows(request.inputs[0], question, len(self._inputs))
            columns = self._matrix(request.inputs[0], rows, chunks[0])
        else:
            for tensor, chunk in zip(request.inputs, chunks, strict=True):
                if tensor.name in columns:
                    raise Invalid(f"Input {tensor.name!r} is given twice.", field=tensor.name)
                rows = self._rows(tensor, question, 1)
                if rows != (expected := request.inputs[0].shape[0]):
                    first = request.inputs[0].name
                    message = f"Input {tensor.name!r} has {rows:,} rows, and input {first!r} has {expected:,}."
                    raise Invalid(message, field=tensor.name)
                columns[tensor.name] = self._column(tensor, rows, chunk)
        asked = self._arrange(columns, request_id)
        return Inference(
            asked.rows, asked.sent, asked.keys, asked.asked_at, asked.request_id, question.endpoint, outputs
        )

    def encode(self, request: Decoded, answer: Answer) -> Reply:
        """The outputs that were asked for: ``predictions`` of FP64, and ``prediction_ids`` of BYTES."""
        request = cast(Inference, request)
        described: list[dict[str, Any]] = []
        parts: list[bytes] = []
        for name, is_binary in request.outputs:
            rows = len(answer.prediction_ids)
            shape, datatype = ([rows, *self._shape], "FP64") if name == PREDICTIONS else ([rows], tensors.BYTES)
            output: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
            if is_binary:
                parts.append(_bytes(name, answer))
                output["parameters"] = {"binary_data_size": len(parts[-1])}
            else:
                output["data"] = _flat(answer.predictions) if name == PREDICTIONS else answer.prediction_ids
            described.append(output)
        header: dict[str, Any] = {
            "model_name": request.endpoint,
            "model_version": str(answer.version),
            "outputs": described,
        }
        if request.request_id is not None:
            header["id"] = request.request_id
        encoded = _encode(header)
        if not parts:
            return Reply(encoded)
        length = (b"inference-header-content-length", b"%d" % len(encoded))
        return Reply(b"".join([encoded, *parts]), _BINARY, (length,))

    def _is_matrix(self, inputs: list[_Tensor]) -> bool:
        if not (self._takes_matrix and len(inputs) == 1):
            return False
        shape = inputs[0].shape
        return len(shape) == 2 and shape[1] == len(self._inputs)

    def _rows(self, tensor: _Tensor, question: Question, width: int) -> int:
        """The rows of a tensor of that width; they are few enough."""
        shape = tensor.shape
        if width == 1 and tensor.name not in self._layout.columns:
            raise unknown("input", tensor.name, self._layout.columns, field=tensor.name)
        if not shape or shape[1:] not in ([width], [] if width == 1 else [width]):
            expected = "[n] or [n, 1]" if width == 1 else f"[n, {width}]"
            shown = str(shape) if len(shape) < 8 else f"{len(shape)} dimensions"
            raise Invalid(f"Input {tensor.name!r}: expected shape {expected}, got {shown}.", field=tensor.name)
        if question.max_rows is not None and shape[0] > question.max_rows:
            raise TooLarge(f"A request brings at most {question.max_rows:,} rows, got {shape[0]:,}.")
        return shape[0]

    def _column(self, tensor: _Tensor, rows: int, chunk: memoryview | None) -> list[object]:
        column = self._layout.columns[tensor.name]
        if chunk is None:
            return tensors.from_json(column, tensor.datatype, _values(tensor, rows))
        return tensors.from_bytes(column, tensor.datatype, chunk, rows)

    def _matrix(self, tensor: _Tensor, rows: int, chunk: memoryview | None) -> dict[str, list[object]]:
        for column in self._inputs:
            tensors.check_datatype(column, tensor.datatype)
        width = len(self._inputs)
        if chunk is not None:
            table = tensors.array(tensor.name, tensor.datatype, chunk, rows * width).reshape(rows, width)
            return {column.name: tensors.from_array(column, table[:, i]) for i, column in enumerate(self._inputs)}
        values = _values(tensor, rows * width)
        return {
            column.name: tensors.from_json(column, tensor.datatype, values[i::width])
            for i, column in enumerate(self._inputs)
        }


def _parts(question: Question) -> tuple[bytes | memoryview, memoryview]:
    """The JSON and the binary part of a body."""
    body = memoryview(question.body)
    if question.json_bytes is None:
        return question.body, body[:0]
    if question.json_bytes > len(body):
        raise Invalid(
            f"Expected {question.json_bytes:,} bytes of JSON, got a body of {len(body):,}.",
            field="inference-header-content-length",
        )
    return body[: question.json_bytes], body[question.json_bytes :]


def _read(header: bytes | memoryview) -> _Request:
    try:
        return _decode(header)
    except msgspec.ValidationError as error:
        raise Invalid(f"The request is not one of the Open Inference Protocol: {error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"The request is not valid JSON: {error}.") from None
    except RecursionError:
        raise Invalid("The request is nested too deeply.") from None


def _request_id(given: str | None) -> str | None:
    if given is not None and len(given) > MAX_REQUEST_ID:
        raise Invalid(f"Expected at most {MAX_REQUEST_ID} characters, got {len(given):,}.", field="id")
    return given or None


def _outputs(request: _Request) -> tuple[tuple[str, bool], ...]:
    is_binary = _flag(request.parameters, "binary_data_output", False)
    if not request.outputs:
        return tuple((name, is_binary) for name in OUTPUTS)
    outputs = []
    for output in request.outputs:
        if output.name not in OUTPUTS:
            raise unknown("output", output.name, OUTPUTS, field=f"outputs.{output.name[:60]}")
        for refused in ("classification", "shared_memory_region"):
            if refused in output.parameters:
                raise Invalid(f"Output {output.name!r}: {refused} is not supported.", field=f"outputs.{output.name}")
        outputs.append((output.name, _flag(output.parameters, "binary_data", is_binary)))
    if len(dict(outputs)) != len(outputs):
        raise Invalid("An output is asked for twice.", field="outputs")
    return tuple(outputs)


def _flag(parameters: dict[str, Any], name: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise Invalid(f"Expected true or false, got {kind_of(value)}.", field=f"parameters.{name}")
    return value


def _chunks(inputs: list[_Tensor], binary: memoryview) -> list[memoryview | None]:
    """The bytes of each tensor, None where its data are in the JSON."""
    chunks: list[memoryview | None] = []
    place = 0
    for tensor in inputs:
        if "shared_memory_region" in tensor.parameters:
            raise Invalid(f"Input {tensor.name!r}: shared memory is not supported.", field=tensor.name)
        size = tensor.parameters.get("binary_data_size")
        if (size is None) == (tensor.data is msgspec.UNSET):
            problem = "neither" if size is None else "both"
            message = f"Input {tensor.name!r}: expected either data or a binary_data_size, got {problem}."
            raise Invalid(message, field=tensor.name)
        if size is None:
            chunks.append(None)
            continue
        if type(size) is not int or not 0 <= size <= len(binary) - place:
            left = len(binary) - place
            message = f"Input {tensor.name!r}: its binary_data_size is {str(size)[:40]}, and {left:,} bytes are there."
            raise Invalid(message, field=tensor.name)
        chunks.append(binary[place : place + size])
        place += size
    if place != len(binary):
        raise Invalid(f"{len(binary) - place:,} bytes belong to no input.", field="inputs")
    return chunks


def _values(tensor: _Tensor, size: int) -> list[object]:
    """The elements of a tensor in JSON, which may be nested as its shape is."""
    try:
        values = _data(cast(msgspec.Raw, tensor.data))
    except RecursionError:
        raise Invalid(f"Input {tensor.name!r}: its data are nested too deeply.", field=tensor.name) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"Input {tensor.name!r}: its data are not valid JSON: {error}.", field=tensor.name) from None
    if not isinstance(values, list):
        raise Invalid(f"Input {tensor.name!r}: expected a list of data, got {kind_of(values)}.", field=tensor.name)
    if len(tensor.shape) == 2 and values and all(isinstance(row, list) for row in values):
        if any(len(row) != tensor.shape[1] for row in values):
            message = f"Input {tensor.name!r}: expected {tensor.shape[1]} values in each row of its data."
            raise Invalid(message, field=tensor.name)
        values = list(chain.from_iterable(values))
    if len(values) != size:
        expected = f"{math.prod(tensor.shape):,} elements by its shape"
        raise Invalid(f"Input {tensor.name!r}: expected {expected}, got {len(values):,}.", field=tensor.name)
    return values


def _bytes(name: str, answer: Answer) -> bytes:
    if name == PREDICTION_IDS:
        return tensors.to_bytes(answer.prediction_ids)
    return np.asarray(answer.predictions, dtype="<f8").tobytes()


def _flat(predictions: Any) -> list[float]:
    return list(chain.from_iterable(predictions)) if isinstance(predictions[0], list) else predictions
