"""A version as a gateway worker holds it: its runtime, its decoder, the lookups that fill its inputs."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime

from relevo.features.model import FeatureView
from relevo.features.online import OnlineStore
from relevo.predictions import frames
from relevo.registry.model import Manifest
from relevo.runtimes.decoders import Decoded, Decoder, build_decoder
from relevo.runtimes.loading import LoadedRuntime
from relevo.runtimes.model import Signature


class LoadedVersion:
    """A verified, probed version in memory. Belongs to the event loop."""

    __slots__ = (
        "_fills",
        "_is_retired",
        "_keys",
        "_uses",
        "bundle",
        "decode",
        "endpoint",
        "has_views",
        "layout",
        "runtime",
        "signature",
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
        self.decode: Decoder = build_decoder(self.signature)
        self.layout = frames.layout(
            [(column.name, column.type.value) for column in self.signature.inputs],
            [(column.name, column.type.value) for column in self.signature.keys],
        )
        places = {column.name: place for place, column in enumerate(self.signature.inputs)}
        self._fills = [
            (place, column.name, column.view) for place, column in enumerate(self.signature.inputs) if column.view
        ]
        self._keys = {name: places[name] for view in self.views for name in view.entity.key if name in places}
        self.has_views = bool(self._fills)
        self._uses = 0
        self._is_retired = False

    def wanted_views(self, sent: frozenset[str]) -> list[FeatureView]:
        """The views that fill an input which the caller did not send."""
        wanted = {view for _, name, view in self._fills if name not in sent}
        return [view for view in self.views if view.name in wanted]

    def look_up(self, decoded: Decoded, views: Sequence[FeatureView], at: list[datetime], store: OnlineStore) -> None:
        """Put the views' values as known at ``at`` (one a row) into the rows of ``decoded``. What was sent stays."""
        keys = decoded.keys
        if self._keys:
            keys = [
                {**key, **{name: row[place] for name, place in self._keys.items()}}
                for key, row in zip(decoded.keys, decoded.rows, strict=True)
            ]
        fills = [(place, name) for place, name, _ in self._fills if name not in decoded.sent]
        for row, values in zip(decoded.rows, store.lookup(self.endpoint, views, keys, at), strict=True):
            for place, name in fills:
                row[place] = values[name]

    def hold(self) -> None:
        """Keep the runtime open during a prediction that the event loop waits for."""
        self._uses += 1

    def release(self) -> None:
        """The prediction is done."""
        self._uses -= 1
        if self._is_retired and self._uses == 0:
            self._close()

    def retire(self) -> None:
        """Close the runtime as soon as no prediction uses it."""
        if not self._is_retired:
            self._is_retired = True
            if self._uses == 0:
                self._close()

    def _close(self) -> None:
        """Close it in a thread: a runtime that ends a process waits for its end."""
        threading.Thread(target=self.runtime.close, name=f"close-{self.endpoint}/{self.version}").start()
