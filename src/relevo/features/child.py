"""The long-lived child process that materialises the views of one model: ``python -m relevo.features.child``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from relevo.contract.model import Source
from relevo.errors import Conflict
from relevo.features.materialise import Materialiser
from relevo.features.model import FeatureView
from relevo.features.online import OnlineStore
from relevo.platform.encoding import parse, to_json
from relevo.platform.jobs import serve

JSON = dict[str, Any]


class MaterialisingChild:
    """What the child serves: ``open`` once, then ``materialise`` as time goes on."""

    def __init__(self) -> None:
        self._materialiser: Materialiser | None = None

    def open(
        self, model: str, views: Sequence[JSON], sources: Sequence[JSON], package: str, store: str, origin: str
    ) -> JSON:
        """Get ready for the views of ``model`` (all as JSON), whose package is in the folder ``package``."""
        self._materialiser = Materialiser(
            OnlineStore(store),
            model=model,
            views=[parse(FeatureView, view) for view in views],
            sources=[parse(Source, source) for source in sources],
            package=Path(package),
            origin=origin,
        )
        return {}

    def materialise(self, until: str) -> JSON:
        """``Materialiser.materialise`` until an ISO 8601 time, its answer as JSON: ``rows`` and ``through``."""
        if self._materialiser is None:
            raise Conflict("materialise came before open")
        return dict(to_json(self._materialiser.materialise(datetime.fromisoformat(until))))


if __name__ == "__main__":
    child = MaterialisingChild()
    serve({"open": child.open, "materialise": child.materialise})
