"""The languages in which a version is asked and answers: what each has to read, and what it writes.

A language is a class that is made from a signature. ``MlflowJson`` is the first; every other one reads to the same
``Decoded`` and writes the same ``Answer``, so that what lies between them need not know which was spoken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol

import msgspec

from relevo.runtimes.decoders import Decoded, build_decoder
from relevo.runtimes.model import Signature

Predictions = list[float] | list[list[float]]

_JSON = b"application/json"
_encode = msgspec.json.Encoder().encode


class Question(msgspec.Struct, frozen=True, gc=False):
    """A request's body as it came, and what its headers say of it.

    Attributes:
        body: All bytes.
        json_bytes: How many of them are JSON, when a binary part follows (``Inference-Header-Content-Length``).
        endpoint: Whose route was asked, for languages that name it in the answer.
        max_rows: How many rows a request may bring, so that a language can refuse before it makes them; None: any.
        max_bytes: How large the body may be once it is expanded; None: any.
        accept: The types that the caller takes as the answer, for languages that have several.
        is_dense: Whether few bytes may hold many values, so that reading them may take long.
    """

    body: bytes
    json_bytes: int | None = None
    endpoint: str = ""
    max_rows: int | None = None
    max_bytes: int | None = None
    accept: bytes = b""
    is_dense: bool = False


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What the rows of a request are answered with: a prediction and an id a row, and the version that gave them."""

    predictions: Predictions
    version: int
    prediction_ids: list[str]


class Reply(msgspec.Struct, frozen=True, gc=False):
    """An answer as it goes out. ``headers`` come beside the type and the length of the body."""

    body: bytes
    content_type: bytes = _JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()
    status: int = 200


class Exchange(Protocol):
    """One language for one signature. Thread-safe."""

    def decode(self, question: Question) -> Decoded:
        """The rows of the request.

        Raises:
            Invalid: It does not fit the signature; the error names the field.
        """
        ...

    def encode(self, request: Decoded, answer: Answer) -> Reply:
        """The answer to ``request`` as it goes out."""
        ...


#: Makes the exchange of a signature: the class of a language.
Language = Callable[[Signature], Exchange]


class MlflowJson:
    """MLflow's scoring JSON, with ids and the version beside the predictions."""

    content_type: ClassVar[bytes] = _JSON

    def __init__(self, signature: Signature) -> None:
        self._decode = build_decoder(signature)

    def decode(self, question: Question) -> Decoded:
        """As ``decoders.build_decoder`` says."""
        return self._decode(question.body)

    def encode(self, request: Decoded, answer: Answer) -> Reply:
        """``{"predictions": [...], "version": 3, "prediction_ids": [...]}``."""
        return Reply(_encode(answer))
