"""Rows as an Arrow IPC stream or file: columns by name, typed; answered in JSON, or in a stream of the same kind.

pyarrow takes 0.3 s and 60 MB to import. It is imported inside the functions: a worker that gets no Arrow body stays
without it, and ``load`` is called in a thread before the first one is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import msgspec
import numpy as np

from relevo.errors import Invalid, TooLarge
from relevo.runtimes import tensors
from relevo.runtimes.arrow_checks import Checks, nulls_of, plain
from relevo.runtimes.arrow_sizes import Broken, messages_of_file, size_of
from relevo.runtimes.decoders import Arranging, Decoded
from relevo.runtimes.exchange import Answer, Question, Reply
from relevo.runtimes.model import Column, ColumnType, Signature
from relevo.runtimes.requests import MAX_REQUEST_ID, Layout, cell, refusal

STREAM = "application/vnd.apache.arrow.stream"
FILE = "application/vnd.apache.arrow.file"

#: Key of the request id in the schema's metadata.
REQUEST_ID = b"request_id"

#: Dictionaries and batches of one request; each is checked as a whole, with the dictionaries that it names.
MAX_MESSAGES = 256

_FILE_START = b"ARROW1"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST_US = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_LATEST_US = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_MICROSECONDS = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": None}  # of a unit; None: it is less than one
_NUMBERS = "an integer or float type"
_EXPECTED = {
    ColumnType.FLOAT: _NUMBERS,
    ColumnType.INTEGER: _NUMBERS,
    ColumnType.TEXT: "text, plain or dictionary-encoded",
    ColumnType.BOOLEAN: "bool",
    ColumnType.TIME: "a timestamp with a time zone, or text",
}
_encode = msgspec.json.Encoder().encode


class ArrowRequest(Decoded, frozen=True):
    """A request that fits the signature. ``wants_arrow``: its caller takes an Arrow stream as the answer."""

    wants_arrow: bool


def load() -> None:
    """Import what reading and writing need, and keep pyarrow to the thread that calls it."""
    import pyarrow as pa
    import pyarrow.compute
    import pyarrow.ipc

    pa.set_cpu_count(1)


class ArrowStream:
    """The language for one signature."""

    def __init__(self, signature: Signature) -> None:
        self._layout = Layout.of(signature)
        self._arrange = Arranging(self._layout)
        self._classes = len(signature.classes) if len(signature.classes) > 2 else 0

    def decode(self, question: Question) -> ArrowRequest:
        """One column an input, key or asked time, in any order.

        Raises:
            Invalid: The bytes are no Arrow, or a column does not fit; the error names it.
            TooLarge: There are more rows than the question allows, or more bytes once they are expanded.
        """
        import pyarrow as pa

        body = pa.py_buffer(question.body)
        is_file = question.body.startswith(_FILE_START)
        try:
            options = pa.ipc.IpcReadOptions(use_threads=False)
            reader = (pa.ipc.open_file if is_file else pa.ipc.open_stream)(body, options=options)
            columns = self._columns(reader.schema)
            messages = _messages_of_file(question.body) if is_file else _messages_of_stream(body)
            _check_sizes(messages, question)
            checks, batches = Checks(question.max_bytes), []
            for batch in map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader:
                checks.check(batch)
                batches.append(batch)
        except MemoryError:  # one of pyarrow's errors is both
            raise TooLarge("The body takes more memory than there is.") from None
        except (pa.ArrowException, OSError, EOFError, Broken, OverflowError, UnicodeDecodeError) as error:
            raise Invalid(f"The body is no valid Arrow {'file' if is_file else 'stream'}: {_first(error)}.") from None
        values: dict[str, list[object]] = {column.name: [] for column in columns}
        for batch in batches:
            for column, array in zip(columns, batch.columns, strict=True):
                values[column.name] += _values(column, array, first_row=len(values[column.name]))
        asked = self._arrange(values, _request_id(reader.schema.metadata))
        wants_arrow = STREAM.encode() in question.accept
        return ArrowRequest(asked.rows, asked.sent, asked.keys, asked.asked_at, asked.request_id, wants_arrow)

    def encode(self, request: Decoded, answer: Answer) -> Reply:
        """JSON as the gateway has it; or a stream of ``predictions``, ``prediction_ids`` and ``version``."""
        if not cast(ArrowRequest, request).wants_arrow:
            return Reply(_encode(answer))
        import pyarrow as pa

        rows = len(answer.predictions)
        numbers = pa.array(np.asarray(answer.predictions, dtype=np.float64).reshape(-1))
        ids: list[str | None] = [*answer.prediction_ids] or [None] * rows  # what was not logged has none
        columns = {
            "predictions": pa.FixedSizeListArray.from_arrays(numbers, self._classes) if self._classes else numbers,
            "prediction_ids": pa.array(ids, pa.string()),
            "version": pa.array([answer.version] * rows, pa.int64()),
        }
        batch = pa.RecordBatch.from_pydict(columns)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        return Reply(sink.getvalue().to_pybytes(), STREAM.encode())

    def _columns(self, schema: Any) -> list[Column]:
        """What the columns of a schema are, of types that they take."""
        self._layout.check_columns(schema.names)
        columns = [self._layout.columns[name] for name in schema.names]
        for column, field in zip(columns, schema, strict=True):
            if not _takes(column, field.type):
                expected, got = _EXPECTED[column.type], str(field.type)[:60]
                raise Invalid(f"Column {column.name!r}: expected {expected}, got {got}.", field=column.name)
        return columns


def _messages_of_stream(body: Any) -> Iterator[tuple[memoryview, memoryview]]:
    """Metadata and body of each message up to the end, which has to be there: a stream that was cut off lacks it."""
    import pyarrow as pa

    source = pa.BufferReader(body)
    reader = pa.ipc.MessageReader.open_stream(source)
    while True:
        place = source.tell()
        try:
            message = reader.read_next_message()
        except StopIteration:
            break
        yield _parts(message)
    if source.tell() == place:
        raise Broken("it has no end-of-stream marker, so it may have been cut off")
    if source.tell() != len(body):
        raise Broken(f"it goes on for {len(body) - source.tell():,} bytes after its end")


def _messages_of_file(body: bytes) -> Iterator[tuple[memoryview, memoryview]]:
    import pyarrow as pa

    for one in messages_of_file(memoryview(body)):
        yield _parts(pa.ipc.read_message(pa.BufferReader(pa.py_buffer(one))))


def _parts(message: Any) -> tuple[memoryview, memoryview]:
    return memoryview(message.metadata), memoryview(b"" if message.body is None else message.body)


def _check_sizes(messages: Iterator[tuple[memoryview, memoryview]], question: Question) -> None:
    """Refuse what would take too much, before it is expanded."""
    rows = expanded = 0
    for count, (metadata, body) in enumerate(messages):
        size = size_of(metadata, body)
        rows, expanded = rows + size.rows, expanded + size.bytes
        if question.max_rows is not None and rows > question.max_rows:
            raise TooLarge(f"A request brings at most {question.max_rows:,} rows, got at least {rows:,}.")
        if question.max_bytes is not None and expanded > question.max_bytes:
            raise TooLarge(f"A body has at most {question.max_bytes:,} bytes after its decompression.")
        if count > MAX_MESSAGES:
            raise TooLarge(f"A body has at most {MAX_MESSAGES} batches and dictionaries; combine them.")


def _takes(column: Column, kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_null(kind):
        return True
    if column.type in (ColumnType.FLOAT, ColumnType.INTEGER):
        return bool(types.is_integer(kind) or types.is_floating(kind))
    if column.type is ColumnType.BOOLEAN:
        return bool(types.is_boolean(kind))
    if column.type is ColumnType.TIME and types.is_timestamp(kind):
        return kind.tz is not None
    text = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_string(text) or types.is_large_string(text) or types.is_string_view(text))


def _values(column: Column, array: Any, first_row: int) -> list[object]:
    """The values of a column that takes the array's type; ``first_row`` is the number of the first, for refusals."""
    import pyarrow.types as types

    nulls = np.flatnonzero(nulls_of(array)).tolist()
    if nulls and not column.nullable:
        raise refusal(column, first_row + nulls[0], "null")
    if types.is_null(array.type):
        return [None] * len(array)
    if types.is_dictionary(array.type) or not types.is_primitive(array.type):
        return _texts(column, array, first_row)
    if types.is_timestamp(array.type):
        values: list[object] = _times(column, array, first_row)
    elif types.is_boolean(array.type):
        values = plain(array).tolist()
    else:
        values = tensors.from_array(column, plain(array.fill_null(0)), first_row)
    for row in nulls:
        values[row] = None
    return values


def _texts(column: Column, array: Any, first_row: int) -> list[object]:
    if hasattr(array, "dictionary"):
        indices = array.indices.to_pylist()
        dictionary = array.dictionary
        values = {index: dictionary[index].as_py() for index in set(indices) - {None}}
        texts = [values.get(index) for index in indices]
    else:
        texts = array.to_pylist()
    if column.type is ColumnType.TIME or (not column.nullable and None in texts):
        return [cell(column, text, first_row + row) for row, text in enumerate(texts)]
    return texts


def _times(column: Column, array: Any, first_row: int) -> list[object]:
    """Times to the microsecond; what is finer is cut off, as in JSON."""
    counts = plain(array.cast("int64").fill_null(0))
    each = _MICROSECONDS[array.type.unit]
    if each is None:
        counts = counts // 1_000
    else:
        wrong = (counts < _EARLIEST_US // each) | (counts > _LATEST_US // each)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise refusal(column, first_row + row, f"{counts[row]} {array.type.unit} since 1970")
        counts = counts * each
    return [time.replace(tzinfo=UTC) for time in counts.astype("M8[us]").tolist()]


def _request_id(metadata: dict[bytes, bytes] | None) -> str | None:
    given = (metadata or {}).get(REQUEST_ID)
    if not given:
        return None
    try:
        text = given.decode()
    except UnicodeDecodeError:
        text = ""
    if not 1 <= len(text) <= MAX_REQUEST_ID:
        raise Invalid(f"Expected UTF-8 text of at most {MAX_REQUEST_ID} characters.", field="request_id")
    return text


def _first(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")
