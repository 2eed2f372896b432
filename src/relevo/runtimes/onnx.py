"""The runtime of a converted model: a graph in ONNX Runtime on one thread. It is imported when the first one is loaded.

The graph takes ``numbers`` ``(n_rows, n_numbers)`` in float64, NaN for null, and ``texts`` ``(n_rows, n_texts)``, each
in the order of the signature, and gives ``answers``. A model that refuses some values has them listed with the graph,
since a graph itself refuses nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from relevo.errors import Corrupted, Invalid, Unavailable
from relevo.runtimes.model import Categories, ColumnType, Signature

#: Name of the runtime's file in a bundle.
FILE = "runtime/model.onnx"

NUMBERS, TEXTS, ANSWERS = "numbers", "texts", "answers"
#: What stands for null and for unseen text, since a graph has no null text: skl2onnx writes NaN so.
NULL_TEXT = "nan"
#: Where the graph's file has its ``Limits`` as JSON.
LIMITS = "relevo.limits"

_NAN = math.nan
_QUIET = 4  # ONNX Runtime's level for what is fatal


class Limits(msgspec.Struct, frozen=True):
    """Values that the original refuses: nulls of some columns, and numbers beyond a size."""

    no_null: tuple[str, ...] = ()
    largest: dict[str, float] = {}


_decode_limits = msgspec.json.Decoder(Limits).decode


class OnnxRuntime:
    """Answers rows with a session of ONNX Runtime, on the calling thread alone. Thread-safe.

    ``close`` must come after the last call.
    """

    def __init__(self, content: bytes, signature: Signature, categories: Categories) -> None:
        self._numpy, self._session = _session(content)
        limits = self._limits()
        self._numbers = [
            (place, column.name, column.name not in limits.no_null, limits.largest.get(column.name, math.inf))
            for place, column in enumerate(signature.inputs)
            if column.type is not ColumnType.TEXT
        ]
        self._texts = [
            (place, column.name, column.name not in limits.no_null, frozenset(categories.get(column.name, ())))
            for place, column in enumerate(signature.inputs)
            if column.type is ColumnType.TEXT
        ]
        self._check_shape(len(signature.classes) if len(signature.classes) > 2 else 0)

    @classmethod
    def load(cls, content: bytes, signature: Signature, categories: Categories) -> OnnxRuntime:
        """The runtime of the file's content; ``categories`` are those of training, by column.

        Raises:
            Corrupted: ONNX Runtime cannot read it, or it does not fit the signature.
            Unavailable: ONNX Runtime is not installed here.
        """
        return cls(content, signature, categories)

    def predict(self, rows: Sequence[Sequence[object]]) -> list[float] | list[list[float]]:
        """Answers ``(n_rows,)``, or ``(n_rows, n_classes)`` for more than two classes. Unseen text counts as null.

        Raises:
            Invalid: A row holds a value that the original refuses.
        """
        if self._session is None:
            raise Unavailable("The ONNX runtime is closed.")
        if not rows:
            return []
        feed = {}
        if self._numbers:
            feed[NUMBERS] = self._numpy.array([self._numbers_of(row) for row in rows], self._numpy.float64)
        if self._texts:
            feed[TEXTS] = self._numpy.array([self._texts_of(row) for row in rows], object)
        return self._run(feed).tolist()  # type: ignore[no-any-return]

    def explain(self, rows: Sequence[Sequence[object]]) -> None:
        """A graph cannot say: the original is asked instead."""

    def close(self) -> None:
        """Free the session. Calling it twice is harmless."""
        self._session = None

    def _numbers_of(self, row: Sequence[Any]) -> list[float]:
        values = []
        for place, name, is_nullable, largest in self._numbers:
            value = row[place]
            if value is None:
                if not is_nullable:
                    raise _refusal(name, "null")
                value = _NAN
            elif not -largest <= value <= largest:
                raise _refusal(name, f"{value!r}")
            values.append(value)
        return values

    def _texts_of(self, row: Sequence[Any]) -> list[str]:
        values = []
        for place, name, is_nullable, known in self._texts:
            value = row[place]
            if value not in known:
                if not is_nullable:
                    raise _refusal(name, "null" if value is None else ascii(value)[:60])
                value = NULL_TEXT
            values.append(value)
        return values

    def _run(self, feed: dict[str, Any]) -> Any:
        try:
            return self._session.run([ANSWERS], feed)[0]
        except Exception as error:  # its classes are known only to the module that is imported late
            raise Corrupted(f"ONNX Runtime refused: {error}"[:500]) from None

    def _limits(self) -> Limits:
        told = self._session.get_modelmeta().custom_metadata_map.get(LIMITS, "{}")
        return _decode_limits(told)

    def _check_shape(self, n_classes: int) -> None:
        widths = {NUMBERS: len(self._numbers), TEXTS: len(self._texts)}
        expected = {name: width for name, width in widths.items() if width}
        got = {one.name: one.shape[1] for one in self._session.get_inputs()}
        if got != expected:
            raise Corrupted(f"The graph has inputs of the widths {got}, the signature {expected}.")
        shape = tuple(self._session.get_outputs()[0].shape[1:])
        if shape != ((n_classes,) if n_classes else ()):
            raise Corrupted(f"The graph has {shape[0] if shape else 1} outputs, the signature {n_classes or 1}.")


def _refusal(name: str, shown: str) -> Invalid:
    return Invalid(f"Column {name!r}: the model cannot answer {shown}.", field=name)


def _session(content: bytes) -> tuple[Any, Any]:
    """NumPy, and the session."""
    try:
        import numpy
        import onnxruntime
    except ImportError:
        raise Unavailable("ONNX Runtime is not installed here; install the package onnxruntime.") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _QUIET
    try:
        return numpy, onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # as above
        raise Corrupted(f"ONNX Runtime refused: {error}"[:500]) from None
