"""Rows that are sealed with a version as requests bring them: what a load test sends.

They are held-out ones, or of an imported model those on which its runtimes were compared.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec

from relevo.registry.bundles import read_manifest
from relevo.runtimes.loading import PROBE_FILE, decode_probe

#: Their place in a bundle.
LOAD_ROWS_FILE = "load_rows.json"
#: So many at most: enough that no cache of one row flatters.
MOST_LOAD_ROWS = 1_000


class LoadRows(msgspec.Struct, frozen=True):
    """Rows ``(n_rows, n_columns)`` of plain JSON values: the inputs that are not computed, and the keys of views."""

    columns: tuple[str, ...]
    rows: list[list[Any]]

    def bodies(self, sent: Collection[str], rows: int) -> list[bytes]:
        """One request's body for each ``rows`` rows, in turn, with the columns that are ``sent``.

        >>> LoadRows(("hour", "speed"), [[1, 0.5], [2, None], [3, 1.5]]).bodies({"hour"}, 2)[1]
        b'{"dataframe_split":{"columns":["hour"],"data":[[3],[1]]}}'
        """
        places = [place for place, name in enumerate(self.columns) if name in sent]
        columns = [self.columns[place] for place in places]
        data = [[row[place] for place in places] for row in self.rows]
        count = -(-len(data) // rows)
        return [
            msgspec.json.encode(
                {
                    "dataframe_split": {
                        "columns": columns,
                        "data": [data[i % len(data)] for i in range(first, first + rows)],
                    }
                }
            )
            for first in range(0, count * rows, rows)
        ]


_decode = msgspec.json.Decoder(LoadRows).decode


def read_load_rows(folder: Path) -> LoadRows | None:
    """The rows in the verified bundle in ``folder``; None when it holds none.

    A bundle that was sealed without them has at least those of its probe: few, some of them awkward. Rows that its
    signature would refuse are left out.
    """
    path = folder / LOAD_ROWS_FILE
    if path.is_file():
        return _decode(path.read_bytes())
    signature = read_manifest(folder).signature
    probe = decode_probe((folder / PROBE_FILE).read_bytes())
    sent = [(place, column) for place, column in enumerate(signature.inputs) if not column.is_computed]
    rows = [
        [row[place] for place, _ in sent]
        for row in probe.rows
        if all(column.nullable or row[place] is not None for place, column in sent)
    ]
    return LoadRows(tuple(column.name for _, column in sent), rows) if rows else None
