"""Request bodies to rows: a decoder is built once from a signature, and names the field of every refusal.

Two readers of the same language. The fast one is msgspec with types made from the signature: it accepts the usual
request and explains nothing. Whatever it does not accept goes to ``requests.read``, plain Python that either reads the
request after all (``3.0`` for an integer, times without seconds) or says what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from operator import itemgetter
from typing import Annotated, Any

import msgspec

from relevo.errors import Invalid
from relevo.runtimes import requests
from relevo.runtimes.model import Column, ColumnType, Signature

#: Column orders of ``dataframe_split`` that are remembered; a client sends one or two.
MAX_ORDERS = 64

_TYPES: dict[ColumnType, Any] = {
    ColumnType.FLOAT: float,
    ColumnType.INTEGER: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)],
    ColumnType.TEXT: str,
    ColumnType.BOOLEAN: bool,
    ColumnType.TIME: Annotated[datetime, msgspec.Meta(tz=True)],
}


class Decoded(msgspec.Struct, frozen=True):  # a Struct, since a frozen dataclass takes five times as long to make
    """A request that fits the signature.

    Attributes:
        rows: Values ``(n_rows, n_inputs)`` in the signature's order; None is null. Times are aware UTC. Inputs that a
            feature view or a transform fills and the caller did not send are None, and each row is then a list.
        sent: The input columns that the caller sent.
        keys: Per row the columns of ``signature.keys``, and only those; key columns that are also inputs stand in rows.
        asked_at: Per row the asked time, None where the caller gave null; None when the request has no such column.
        request_id: The caller's own id of the request.
    """

    rows: Sequence[Sequence[object]]
    sent: frozenset[str]
    keys: list[dict[str, object]]
    asked_at: list[datetime | None] | None
    request_id: str | None


Decoder = Callable[[bytes], Decoded]

#: Rows of values in the order in which they came, to rows of inputs.
_Pick = Callable[[list[tuple[Any, ...]]], Sequence[Sequence[object]]]
#: Rows of values, in whatever order they came, to the parts of a ``Decoded``.
_Arrange = Callable[[list[tuple[Any, ...]], str | None], Decoded]


def build_decoder(signature: Signature) -> Decoder:
    """The reader of request bodies for ``signature``. The reader is thread-safe.

    It takes MLflow's ``{"dataframe_split": {"columns", "data"}}`` and ``{"dataframe_records": [...]}`` fast, its
    ``instances`` and ``inputs`` by the plain reader, each with an optional ``"request_id"``. Columns come in any order;
    unknown ones are refused by name; integers are numbers and booleans are not. The reader raises ``Invalid`` with the
    column in ``field`` and the row in the message.
    """
    layout = requests.Layout.of(signature)
    envelope: Any = msgspec.json.Decoder(_envelope(layout))
    orders: dict[tuple[str, ...], tuple[msgspec.json.Decoder[list[tuple[Any, ...]]], _Arrange]] = {}
    every = tuple(layout.columns)
    arrange_records = {every: _arrangement(layout, every)}

    def split(body: Any, request_id: str | None) -> Decoded:
        columns = tuple(body.columns)
        order = orders.get(columns)
        if order is None:
            layout.check_columns(columns)
            if len(orders) >= MAX_ORDERS:
                orders.clear()
            kinds = tuple(kind(layout.columns[name]) for name in columns)
            order = (msgspec.json.Decoder(list[tuple[kinds]]), _arrangement(layout, columns))  # type: ignore[valid-type]
            orders[columns] = order
        return order[1](order[0].decode(body.data), request_id)

    def records(body: list[Any], request_id: str | None) -> Decoded:
        first = msgspec.structs.astuple(body[0])
        sent = every if msgspec.UNSET not in first else _sent(every, first)
        arrange = arrange_records.get(sent)
        if arrange is None:
            layout.check_columns(sent)
            if len(arrange_records) >= MAX_ORDERS:
                arrange_records.clear()
            arrange = arrange_records[sent] = _arrangement(layout, sent)
        if sent is every and len(body) == 1:
            return arrange([first], request_id)
        return arrange(_same_columns(every, sent, body), request_id)

    def decode(body: bytes) -> Decoded:
        try:
            request = envelope.decode(body)
            if request.dataframe_split is not msgspec.UNSET:
                if request.dataframe_records is msgspec.UNSET:
                    return split(request.dataframe_split, request.request_id)
            elif request.dataframe_records:
                return records(request.dataframe_records, request.request_id)
        except (msgspec.MsgspecError, Invalid, OverflowError, UnicodeDecodeError, RecursionError):
            pass  # the plain reader below says what is wrong
        columns, rows, request_id = requests.read(layout, body)
        return _arrangement(layout, columns)(rows, request_id)

    return decode


class Arranging:
    """Rows of a language that sends whole columns, in any order, to ``Decoded``. Thread-safe."""

    def __init__(self, layout: requests.Layout) -> None:
        self._layout = layout
        self._orders: dict[tuple[str, ...], _Arrange] = {}

    def __call__(self, columns: Mapping[str, Sequence[object]], request_id: str | None) -> Decoded:
        """The rows of ``columns``, each with its typed values and all of one length.

        Raises:
            Invalid: A column is unknown or missing, or there is no row.
        """
        names = tuple(columns)
        arrange = self._orders.get(names)
        if arrange is None:
            self._layout.check_columns(names)
            if len(self._orders) >= MAX_ORDERS:
                self._orders.clear()
            arrange = self._orders[names] = _arrangement(self._layout, names)
        rows = list(zip(*columns.values(), strict=True))
        if not rows:
            raise Invalid("Expected at least one row, got none.")
        return arrange(rows, request_id)


def kind(column: Column) -> Any:
    """The type by which msgspec reads a value of the column."""
    plain = _TYPES[column.type]
    return plain | None if column.nullable else plain


def _envelope(layout: requests.Layout) -> type[msgspec.Struct]:
    """The struct of a whole body. Fields are numbered, since a column may have any name."""
    columns = list(layout.columns.values())
    record = msgspec.defstruct(
        "Record",
        [(f"c{i}", kind(column) | msgspec.UnsetType, msgspec.UNSET) for i, column in enumerate(columns)],
        rename={f"c{i}": column.name for i, column in enumerate(columns)},
        forbid_unknown_fields=True,
        gc=False,
    )
    split = msgspec.defstruct(
        "Split",
        [("columns", list[str]), ("data", msgspec.Raw), ("index", msgspec.Raw | msgspec.UnsetType, msgspec.UNSET)],
        forbid_unknown_fields=True,
    )
    name = Annotated[str, msgspec.Meta(min_length=1, max_length=requests.MAX_REQUEST_ID)]
    return msgspec.defstruct(
        "Request",
        [
            ("dataframe_split", split | msgspec.UnsetType, msgspec.UNSET),
            ("dataframe_records", list[record] | msgspec.UnsetType, msgspec.UNSET),  # type: ignore[valid-type]
            ("request_id", name | None, None),
        ],
        forbid_unknown_fields=True,
    )


def _sent(every: tuple[str, ...], values: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(name for name, value in zip(every, values, strict=True) if value is not msgspec.UNSET)


def _same_columns(every: tuple[str, ...], sent: tuple[str, ...], body: list[Any]) -> list[tuple[Any, ...]]:
    """The values of records that all send the same columns; Invalid otherwise."""
    rows = [msgspec.structs.astuple(record) for record in body]
    if sent is every:
        if any(msgspec.UNSET in row for row in rows):
            raise Invalid("records differ in their columns")
        return rows
    if any(_sent(every, row) != sent for row in rows):
        raise Invalid("records differ in their columns")
    return [tuple(value for value in row if value is not msgspec.UNSET) for row in rows]


def _arrangement(layout: requests.Layout, columns: tuple[str, ...]) -> _Arrange:
    """How rows whose values stand in the order of ``columns`` become a ``Decoded``; worked out once an order."""
    place = {name: index for index, name in enumerate(columns)}
    inputs = [column.name for column in layout.signature.inputs]
    pick = _picker([place.get(name, -1) for name in inputs], len(columns))
    keys = [(key.name, place.get(key.name, -1)) for key in layout.signature.keys]
    times = [i for i, name in enumerate(columns) if layout.columns[name].type is ColumnType.TIME]
    return partial(_arrange, pick, keys, place.get(layout.signature.at or ""), times, frozenset(inputs) & set(columns))


def _picker(places: list[int], width: int) -> _Pick:
    """Takes the values at ``places`` (-1: None, for a list that will be filled) from rows of ``width`` values."""
    if places == list(range(width)):
        return lambda rows: rows
    if not places:
        return lambda rows: [[] for _ in rows]
    if len(places) == 1:
        only = places[0]
        return lambda rows: [[None if only < 0 else row[only]] for row in rows]
    get = itemgetter(*places)
    if -1 in places:
        return lambda rows: [list(get((*row, None))) for row in rows]
    return lambda rows: list(map(get, rows))


def _arrange(
    pick: _Pick,
    keys: list[tuple[str, int]],
    at: int | None,
    times: list[int],
    sent: frozenset[str],
    rows: list[tuple[Any, ...]],
    request_id: str | None,
) -> Decoded:
    if not rows:
        raise Invalid("no rows")
    if times:
        rows = [_in_utc(row, times) for row in rows]
    key_rows: list[dict[str, object]] = (
        [{name: None if i < 0 else row[i] for name, i in keys} for row in rows] if keys else [{}] * len(rows)
    )
    asked_at = None if at is None else [row[at] for row in rows]
    return Decoded(pick(rows), sent, key_rows, asked_at, request_id)


def _in_utc(row: tuple[Any, ...], times: list[int]) -> tuple[Any, ...]:
    if all(row[i] is None or row[i].tzinfo is UTC for i in times):
        return row
    values = list(row)
    for i in times:
        values[i] = None if row[i] is None else row[i].astimezone(UTC)
    return tuple(values)
