"""A version as a gateway worker holds it: its runtime, its decoder, the lookups and transforms that fill its inputs."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from relevo.errors import Invalid
from relevo.features.expressions import Kind
from relevo.features.model import FeatureView
from relevo.features.online import OnlineStore
from relevo.features.row_values import RowTransforms
from relevo.predictions import frames
from relevo.registry.model import Manifest
from relevo.runtimes.decoders import Decoded
from relevo.runtimes.exchange import Exchange, Language
from relevo.runtimes.loading import LoadedRuntime
from relevo.runtimes.model import ColumnType, Signature
from relevo.serving.counters import Tally

#: Different sets of sent columns that are remembered; a client sends one or two.
_MAX_FILLINGS = 64

_KINDS = {
    ColumnType.FLOAT: Kind.NUMBER,
    ColumnType.INTEGER: Kind.NUMBER,
    ColumnType.BOOLEAN: Kind.TRUTH,
    ColumnType.TEXT: Kind.TEXT,
}


@dataclass(frozen=True, slots=True)
class Filling:
    """What is to be done for requests that send the same columns.

    Attributes:
        views: What is looked up, in the order of the version's views.
        fills: From the place of a value among the features of these views to the place of an input.
        needs_computing: Whether a transform is to be computed.
        looked_up: Marks the inputs that the online store gives, as the log keeps it.
    """

    views: tuple[FeatureView, ...]
    fills: tuple[tuple[int, int], ...]
    needs_computing: bool
    looked_up: bytes


class LoadedVersion:
    """A verified, probed version in memory. Belongs to the event loop.

    Attributes:
        is_filled: Whether it has inputs that views or transforms fill.
        tally: Counts what it answers; set when it takes its place among the endpoint's versions.
        memory_bytes: What it takes in memory, as ``loader.memory_bytes`` says.
        used_at: When it was last seen to have answered, on the monotonic clock; ``mark`` looks.
    """

    __slots__ = (
        "_exchanges",
        "_fillings",
        "_fills",
        "_is_closed",
        "_is_retired",
        "_keys",
        "_places",
        "_replaced",
        "_seen",
        "_transforms",
        "_uses",
        "bundle",
        "endpoint",
        "is_filled",
        "layout",
        "memory_bytes",
        "runtime",
        "signature",
        "tally",
        "used_at",
        "version",
        "views",
    )

    def __init__(self, endpoint: str, version: int, bundle: str, manifest: Manifest, runtime: LoadedRuntime) -> None:
        self.endpoint = endpoint
        self.version = version
        self.bundle = bundle
        self.runtime = runtime
        self.signature: Signature = manifest.signature
        self.views: tuple[FeatureView, ...] = manifest.views
        self.tally = Tally()
        self.layout = frames.layout(
            [(column.name, column.type.value) for column in self.signature.inputs],
            [(column.name, column.type.value) for column in self.signature.keys],
        )
        places = {column.name: place for place, column in enumerate(self.signature.inputs)}
        self._places = places
        self._fills = [
            (place, column.name, column.view) for place, column in enumerate(self.signature.inputs) if column.view
        ]
        self._keys = {name: places[name] for view in self.views for name in view.entity.key if name in places}
        self._transforms = _transforms(manifest, places)
        self.is_filled = bool(self._fills) or self._transforms is not None
        self._exchanges: dict[Language, Exchange] = {}
        self._fillings: dict[frozenset[str], Filling] = {}
        self._uses = 0
        self._is_retired = False
        self._is_closed = False
        self.memory_bytes = 0
        self.used_at = time.monotonic()
        self._seen = 0
        self._replaced = 0

    def exchange(self, language: Language) -> Exchange:
        """How it is asked and answers in that language; made on first use."""
        found = self._exchanges.get(language)
        if found is None:
            found = self._exchanges[language] = language(self.signature)
        return found

    def value_of(self, decoded: Decoded, column: str) -> object:
        """The value of a column in the first row: an input, or a key that finds features; None when it has neither."""
        place = self._places.get(column)
        return decoded.keys[0].get(column) if place is None else decoded.rows[0][place]

    def filling(self, sent: frozenset[str]) -> Filling:
        """What is to be looked up and computed when the caller sends these columns."""
        known = self._fillings.get(sent)
        if known is None:
            if len(self._fillings) >= _MAX_FILLINGS:
                self._fillings.clear()
            known = self._fillings[sent] = self._filling(sent)
        return known

    def _filling(self, sent: frozenset[str]) -> Filling:
        missing = [(place, name, view) for place, name, view in self._fills if name not in sent]
        wanted = {view for _, _, view in missing}
        views = tuple(view for view in self.views if view.name in wanted)
        names = [feature.name for view in views for feature in view.features]
        fills = tuple((names.index(name), place) for place, name, _ in missing)
        computes = self._transforms is not None and not self._transforms.names <= sent
        return Filling(views, fills, computes, frames.marks([place for place, _, _ in missing]))

    def compute(self, decoded: Decoded, at: list[datetime]) -> None:
        """Put the transforms that the caller did not send into the rows of ``decoded``, asked at ``at`` (one a row).

        Raises:
            Invalid: A transform asks for the local time of the first hours that the calendar has.
        """
        if self._transforms is not None:
            try:
                self._transforms.fill(_to_fill(decoded), at, decoded.sent)
            except OverflowError:
                message = f"A row is asked at {min(at).isoformat()}, which has no local time elsewhere."
                raise Invalid(message, field=self.signature.at) from None

    def look_up(self, decoded: Decoded, at: list[datetime], store: OnlineStore) -> datetime | None:
        """Put what the caller did not send, as known at ``at`` (one a row), into the rows of ``decoded``.

        Gives the time through which the views were filled; None when one of them never was.

        Raises:
            Invalid: A view that is required knows no row of an entity.
        """
        filling = self.filling(decoded.sent)
        keys = decoded.keys
        if self._keys:  # entity keys that are inputs stand in the rows alone
            keys = [
                {**key, **{name: row[place] for name, place in self._keys.items()}}
                for key, row in zip(decoded.keys, decoded.rows, strict=True)
            ]
        found = store.find(self.endpoint, filling.views, keys, at)
        for view in filling.views if found.without_rows else ():
            if view.required and view.name in found.without_rows:
                place = found.without_rows[view.name][0]
                raise _missing(view, place, keys[place], at[place], is_filled=found.materialised_through is not None)
        for row, values in zip(_to_fill(decoded), found.values, strict=True):
            for place, to in filling.fills:
                row[to] = values[place]
        return found.materialised_through

    def mark(self, now: float) -> None:
        """Note that it was used, if it has answered anything since the last look: no request has to note it."""
        activity = self.tally.activity
        if activity != self._seen or self._uses:
            self._seen = activity
            self.used_at = now

    def count_replaced(self) -> None:
        """Count the processes of its own that were replaced since the last look."""
        replaced = self.runtime.replaced_processes
        self.tally.replaced += replaced - self._replaced
        self._replaced = replaced

    @property
    def uses(self) -> int:
        """How many requests wait for it."""
        return self._uses

    @property
    def is_held(self) -> bool:
        """Whether a request waits for it."""
        return self._uses > 0

    def __enter__(self) -> None:
        """Keep the runtime open while a request uses it."""
        self._uses += 1

    def __exit__(self, *about: object) -> None:
        """The request is done with it."""
        self._uses -= 1
        if self._is_retired:
            self._close_if_unused()

    def retire(self) -> None:
        """Close the runtime as soon as no request uses it."""
        self._is_retired = True
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        """Close it in a thread: a runtime that ends a process waits for its end."""
        if self._uses == 0 and not self._is_closed:
            self._is_closed = True
            threading.Thread(target=self.runtime.close, name=f"close-{self.endpoint}/{self.version}").start()


def _to_fill(decoded: Decoded) -> list[list[object]]:
    """The rows of a request that did not send every input; as ``Decoded`` says, they are lists."""
    return cast(list[list[object]], decoded.rows)


def _transforms(manifest: Manifest, places: dict[str, int]) -> RowTransforms | None:
    if not manifest.transforms:
        return None
    given = [column for column in manifest.signature.inputs if not column.is_computed and column.type in _KINDS]
    return RowTransforms(manifest.transforms, places, {column.name: _KINDS[column.type] for column in given})


def _missing(
    view: FeatureView, place: int, keys: Mapping[str, object], at: datetime, *, is_filled: bool
) -> Invalid | RuntimeError:
    """The refusal of a row whose entity a required view does not know; a view not filled is no caller's fault."""
    if not is_filled:
        return RuntimeError(f"view {view.name} is required, and was not filled yet")
    key = {name: keys.get(name) for name in view.entity.key}
    null = next((name for name, value in key.items() if value is None), None)
    if null is not None:
        return Invalid(f"Row {place}: view {view.name} needs {null!r}, got null.", field=null)
    entity = ", ".join(f"{name} {value!r}" for name, value in key.items())
    return Invalid(
        f"Row {place}: view {view.name} knows no {view.entity.name} with {entity} at {at.isoformat()}.",
        field=view.entity.key[0],
        hint="Send its features with the request, or an entity that the source has had a row of.",
    )
