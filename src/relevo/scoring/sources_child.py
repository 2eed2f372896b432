"""The child that loads what feature views look up, by a version's code: ``python -m relevo.scoring.sources_child``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from relevo.contract.model import Source
from relevo.datasets.checks import without_quarantined
from relevo.datasets.loading import read_source
from relevo.platform.child import progress, serve
from relevo.platform.encoding import parse


def load(sources: Sequence[dict[str, Any]], package: str, until: str, into: str) -> dict[str, Any]:
    """Write the rows of each source that are known at ``until`` to ``into``, as ``NAME.arrow``."""
    for each in sources:
        source = parse(Source, each)
        progress(f"loading {source.name}")
        rows = read_source(source, Path(package), until=datetime.fromisoformat(until))
        without_quarantined(source, Path(package), rows).write_ipc(Path(into, f"{source.name}.arrow"))
    return {}


if __name__ == "__main__":
    serve({"load": load})
