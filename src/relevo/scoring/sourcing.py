"""The sources of feature views, taken from where the control plane left them and kept with the run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from relevo.contract.model import Source
from relevo.errors import Unavailable
from relevo.platform.encoding import canonical, parse
from relevo.scoring.model import Sources

_DECLARED = "sources.json"


def keep_sources(loaded: Sources, into: Path) -> None:
    """Move the loaded sources to the folder ``into``, which appears only when all are there.

    Raises:
        Unavailable: They are not on this machine.
    """
    left = Path(loaded.folder)
    if not left.is_dir():
        raise Unavailable(
            f"The control plane loaded the sources into {left}, and there is no such folder here.",
            hint="Run relevo score on the machine of the home folder, as the user that it belongs to.",
        )
    draft = into.with_name(f"{into.name}.writing")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(left, draft)
    (draft / _DECLARED).write_bytes(canonical(loaded.sources))
    draft.rename(into)
    shutil.rmtree(left, ignore_errors=True)


def kept_sources(folder: Path) -> list[Source]:
    """How the kept sources are declared."""
    return [parse(Source, each) for each in json.loads((folder / _DECLARED).read_bytes())]
