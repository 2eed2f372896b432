"""In which language a request for predictions is made, by its Content-Type."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from relevo.runtimes import arrow, comma_separated
from relevo.runtimes.arrow import ArrowStream
from relevo.runtimes.comma_separated import CommaSeparated
from relevo.runtimes.exchange import Language, MlflowJson, Question
from relevo.serving.calls import WrongType
from relevo.serving.limits import Limits

#: Header values of JSON: its own; none; and what clients send that do not say what they send, such as ``curl -d``.
JSON: Mapping[bytes | None, Language] = dict.fromkeys(
    (None, b"application/json", b"application/octet-stream", b"application/x-www-form-urlencoded"), MlflowJson
)

_BY_TYPE: dict[bytes | None, Language] = {
    **JSON,
    comma_separated.TYPE.encode(): CommaSeparated,
    arrow.STREAM.encode(): ArrowStream,
    arrow.FILE.encode(): ArrowStream,
}
#: What a Content-Type may be, in words.
EXPECTED = f"application/json, {comma_separated.TYPE}, {arrow.STREAM} or {arrow.FILE}"


async def find(headers: Mapping[bytes, bytes]) -> Language:
    """The language of the request, ready to be read.

    Raises:
        WrongType: It is none of those that are known.
    """
    header = headers.get(b"content-type")
    name = None if header is None else header.partition(b";")[0].strip().lower() or None
    language = _BY_TYPE.get(name)
    if language is None:
        got = repr(header[:60].decode("latin-1")) if header else "nothing"
        raise WrongType(f"Expected Content-Type {EXPECTED}, got {got}.", field="content-type")
    if language is ArrowStream:
        await asyncio.to_thread(arrow.load)
    return language


def question(headers: Mapping[bytes, bytes], body: bytes, limits: Limits) -> Question:
    """What is asked, with what a language other than JSON has to know of it."""
    accept = headers.get(b"accept", b"").lower()
    return Question(body, max_rows=limits.rows, max_bytes=limits.body_bytes, accept=accept, is_dense=True)
