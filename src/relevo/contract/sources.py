"""Reads the block ``sources``: each names a loader, files, a query or a table, and says how it is loaded and kept."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Literal, cast

from relevo.contract.model import FILE_KINDS, SOURCE_KINDS, Source
from relevo.contract.reading import Block
from relevo.contract.references import IDENTIFIER, read_optional_reference

#: A parameter of a query, told from ``::type``, from ``12:30`` and from an escaped ``\:``, as SQLAlchemy does.
PARAMETER = re.compile(r"(?<![:\w\\]):(\w+)(?!:)")
_PARAMETERS = ("since", "until")
_CONNECTION = re.compile(r"[a-z][a-z0-9_]{0,62}")


def read_sources(root: Block, package: str) -> dict[str, Source]:
    """The sources by name, in the order of the document."""
    blocks = root.block("sources")
    sources = {}
    for name in blocks.names():
        if not IDENTIFIER.fullmatch(name):
            blocks.wrong(name, f"expected letters, digits and '_', a letter first, got {name!r}")
        elif name.endswith("__quarantine"):
            blocks.wrong(name, f"expected a name that does not end in __quarantine, as our own tables do, got {name!r}")
        sources[name] = _source(name, blocks.block(name), package)
    if not blocks.is_missing and not sources:
        root.wrong("sources", "expected at least one source")
    return sources


def _source(name: str, block: Block, package: str) -> Source:
    source = Source(
        name=name,
        loader=read_optional_reference(block, "loader", package),
        files=_files(block),
        query=_query(block),
        connection=_connection(block),
        table=_table(block),
        key=block.texts("key", "[flight_id]"),
        event_time=block.optional_text("event_time", what="the name of a column"),
        known_time=block.optional_text("known_time", what="the name of a column"),
        checks=read_optional_reference(block, "checks", package),
        on_failure=cast(
            Literal["fail", "quarantine", "warn"], block.choice("on_failure", ("fail", "quarantine", "warn"), "fail")
        ),
        load=cast(Literal["full", "incremental"], block.choice("load", ("full", "incremental"), "full")),
        lateness=block.duration("lateness", timedelta(0)),
        keep=block.duration("keep", positive=True) if "keep" in block else None,
    )
    block.keys_known("keep")
    _require_one_kind(block)
    _require_partners(block, source)
    block.close()
    return source


def _require_one_kind(block: Block) -> None:
    given = [kind for kind in SOURCE_KINDS if kind in block]
    if not given and not block.is_missing:
        block.problems.add(block.path, f"missing key; expected exactly one of {', '.join(SOURCE_KINDS)}")
    for kind in given[1:]:
        line = block.problems.line_of(block.at(given[0]))
        block.wrong(kind, f"expected exactly one of {', '.join(SOURCE_KINDS)}, got {given[0]!r} too (line {line})")


def _require_partners(block: Block, source: Source) -> None:
    """What makes sense only beside another key."""
    if source.known_time and not source.event_time:
        block.wrong("known_time", "a source with known_time needs event_time too: when the row happened")
    if "query" in block and "connection" not in block:
        block.problems.add(block.path, "missing key 'connection'; expected the name of the connection that is asked")
    if "connection" in block and "query" not in block:
        block.wrong("connection", "a connection is asked a query, and this source has none")
    if source.load == "incremental" and not source.event_time:
        block.wrong("load", "an incremental load goes by time, and this source has no event_time")
    if "lateness" in block and source.load != "incremental":
        block.wrong("lateness", "lateness is how far back an incremental load reads again; this source is loaded full")
    if "on_failure" in block and "checks" not in block:
        block.wrong("on_failure", "on_failure says what is done about rows that fail the checks; there are no checks")


def _files(block: Block) -> str | None:
    what = "a pattern such as data/orders/*.parquet"
    pattern = block.optional_text("files", what=what)
    if not pattern:
        return pattern
    if not pattern.endswith(FILE_KINDS):
        block.wrong("files", f"expected a pattern that ends in {', '.join(FILE_KINDS)}, got {pattern!r}")
    parts = PurePosixPath(pattern).parts
    if ".." in parts or "://" in pattern:
        block.wrong("files", f"expected {what} inside the project, or an absolute path, got {pattern!r}")
    elif not pattern.startswith("/") and any(part.startswith(".") for part in parts):
        block.wrong("files", f"hidden files do not travel with the project, got {pattern!r}")
    return pattern


def _query(block: Block) -> str | None:
    query = block.optional_text("query", what="a query such as SELECT * FROM orders")
    for name in PARAMETER.findall(query or ""):
        if name not in _PARAMETERS:
            block.wrong("query", f"expected no parameter but :since and :until, got :{name} (a plain colon is \\:)")
    return query


def _connection(block: Block) -> str | None:
    what = "the name of a connection such as warehouse, whose URL is in RELEVO_CONNECTION_WAREHOUSE"
    name = block.optional_text("connection", what=what)
    if name and not _CONNECTION.fullmatch(name):
        # A URL may hold a password: it is not repeated.
        got = "a URL; a contract holds none, for a URL may hold a password" if "://" in name else repr(name)
        block.wrong("connection", f"expected {what}, got {got}")
        return None
    return name


def _table(block: Block) -> str | None:
    what = "the absolute path of a Delta table, on the machine of the control plane"
    path = block.optional_text("table", what=what)
    if path and (not path.startswith("/") or ".." in PurePosixPath(path).parts):
        block.wrong("table", f"expected {what}, got {path!r}")
    return path
