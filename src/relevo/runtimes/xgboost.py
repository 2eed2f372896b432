"""The XGBoost runtime: a booster's bytes in XGBoost's own C library, without its Python package.

That package brings pandas and scikit-learn with it, and a frame costs it a millisecond a call. The library is found
beside it on disk.
"""

from __future__ import annotations

import ctypes
import json
import math
from collections import deque
from collections.abc import Sequence
from functools import cache
from struct import Struct
from typing import Any

from relevo.errors import Corrupted, Invalid, Unavailable
from relevo.runtimes.explanation import Explanation, explanation_of
from relevo.runtimes.model import Categories, ColumnType, Link, Signature
from relevo.runtimes.native_library import find_library

#: Name of the runtime's file in a bundle: the booster as XGBoost writes it in UBJSON.
FILE = "runtime/xgboost.ubj"

#: Answers after the link, of all trees; a value that is not a number is missing.
_ASKED = (
    b'{"type": 0, "training": false, "iteration_begin": 0, "iteration_end": 0, '
    b'"missing": NaN, "strict_shape": false, "cache_id": 0}'
)
#: Contributions to the score of each class, the base last.
_EXPLAINED = (
    b'{"type": 2, "training": false, "iteration_begin": 0, "iteration_end": 0, "strict_shape": true, "cache_id": 0}'
)
_READ = b'{"missing": NaN, "nthread": 1}'
#: From the sum of the trees to the prediction, by objective; others are not explained here.
_LINKS = {
    **dict.fromkeys(("binary:logistic", "reg:logistic"), Link.LOGISTIC),
    **dict.fromkeys(("reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror"), Link.IDENTITY),
    **dict.fromkeys(("count:poisson", "reg:gamma", "reg:tweedie"), Link.EXPONENTIAL),
    "multi:softprob": Link.SOFTMAX,
}
_NAN = math.nan


class XgboostRuntime:
    """Answers rows with a booster, on the calling thread alone.

    Thread-safe: each call takes a lane, memory of its own, and the booster is only read. One row is answered with the
    interpreter's lock held, since handing it over costs more under load; batches are answered without it. ``close``
    must come after the last call.
    """

    def __init__(self, content: bytes, signature: Signature, categories: Categories) -> None:
        self._library, self._held = _library()
        self._booster = ctypes.c_void_p()
        self._lanes: deque[_Lane] = deque()
        self._width = len(signature.inputs)
        self._outputs = len(signature.classes) if len(signature.classes) > 2 else 1
        self._encoders = _encoders(signature, categories)
        self._check(self._library.XGBoosterCreate(None, 0, ctypes.byref(self._booster)))
        self._check(self._library.XGBoosterLoadModelFromBuffer(self._booster, content, len(content)))
        for name, value in ((b"nthread", b"1"), (b"verbosity", b"0")):
            self._check(self._library.XGBoosterSetParam(self._booster, name, value))
        self._check_shape()
        self._signature = signature
        self._link = _LINKS.get(self._objective())

    @classmethod
    def load(cls, content: bytes, signature: Signature, categories: Categories) -> XgboostRuntime:
        """The runtime of the file's content; ``categories`` are those of training, by column.

        Raises:
            Corrupted: XGBoost cannot read it, or it does not fit the signature.
            Unavailable: XGBoost's library is not installed here.
        """
        return cls(content, signature, categories)

    def predict(self, rows: Sequence[Sequence[object]]) -> list[float] | list[list[float]]:
        """Answers ``(n_rows,)``, or ``(n_rows, n_classes)`` for more than two classes. Unseen text counts as null."""
        if not self._booster:
            raise Unavailable("The XGBoost runtime is closed.")
        if len(rows) == 1:
            return self._predict_row(rows[0])
        if not rows:
            return []
        values = [value for row in rows for value in self._encoded(row)]
        data = (ctypes.c_double * len(values))(*values)
        shape, dimensions, answers = _shape(), ctypes.c_uint64(), ctypes.POINTER(ctypes.c_float)()
        self._check(
            self._library.XGBoosterPredictFromDense(
                *(self._booster, _array(data, len(rows), self._width), _ASKED, None),
                *(ctypes.byref(shape), ctypes.byref(dimensions), ctypes.byref(answers)),
            )
        )
        flat = answers[: len(rows) * self._outputs]
        if self._outputs == 1:
            return flat
        return [flat[i : i + self._outputs] for i in range(0, len(flat), self._outputs)]

    def explain(self, rows: Sequence[Sequence[object]]) -> Explanation | None:
        """Shapley values of the trees' scores (Lundberg et al. 2018), in float32; None for an unknown objective."""
        if self._link is None:
            return None
        values = [value for row in rows for value in self._encoded(row)]
        data = (ctypes.c_double * len(values))(*values)
        matrix = ctypes.c_void_p()
        array = _array(data, len(rows), self._width)
        self._check(self._library.XGDMatrixCreateFromDense(array, _READ, ctypes.byref(matrix)))
        try:
            kinds = (ctypes.c_char_p * self._width)(*(b"q" if codes is None else b"c" for codes in self._encoders))
            self._check(self._library.XGDMatrixSetStrFeatureInfo(matrix, b"feature_type", kinds, self._width))
            shape, dimensions, answers = _shape(), ctypes.c_uint64(), ctypes.POINTER(ctypes.c_float)()
            self._check(
                self._library.XGBoosterPredictFromDMatrix(
                    *(self._booster, matrix, _EXPLAINED),
                    *(ctypes.byref(shape), ctypes.byref(dimensions), ctypes.byref(answers)),
                )
            )
            width = math.prod(shape[1 : dimensions.value])
            flat = [answers[i : i + width] for i in range(0, len(rows) * width, width)]
        finally:
            self._library.XGDMatrixFree(matrix)
        return explanation_of(flat, self._signature, self._link)

    def close(self) -> None:
        """Free the booster. Calling it twice is harmless."""
        while self._lanes:
            self._library.XGDMatrixFree(self._lanes.pop().proxy)
        if self._booster:
            self._library.XGBoosterFree(self._booster)
            self._booster = ctypes.c_void_p()

    def _predict_row(self, row: Sequence[object]) -> list[float] | list[list[float]]:
        encoded = self._encoded(row)
        lane = self._lane()
        try:
            lane.put(lane.data, 0, *encoded)
            self._check(self._held(self._booster, lane.array, _ASKED, lane.proxy, *lane.found))
            answer = lane.answers[: self._outputs]  # XGBoost writes it into memory of this thread
        finally:
            self._lanes.append(lane)
        return answer if self._outputs == 1 else [answer]

    def _lane(self) -> _Lane:
        try:
            return self._lanes.pop()
        except IndexError:
            proxy = ctypes.c_void_p()
            self._check(self._library.XGProxyDMatrixCreate(ctypes.byref(proxy)))
            return _Lane(proxy, self._width)

    def _encoded(self, row: Sequence[Any]) -> list[float]:
        return [
            (_NAN if value is None else value) if codes is None else codes.get(value, _NAN)
            for codes, value in zip(self._encoders, row, strict=True)
        ]

    def _check_shape(self) -> None:
        inputs = ctypes.c_uint64()
        self._check(self._library.XGBoosterGetNumFeature(self._booster, ctypes.byref(inputs)))
        if inputs.value != self._width:
            raise Corrupted(f"The booster has {inputs.value} inputs, the signature {self._width}.")
        lane = self._lane()
        lane.put(lane.data, 0, *[_NAN] * self._width)
        self._check(self._held(self._booster, lane.array, _ASKED, lane.proxy, *lane.found))
        outputs = math.prod(lane.shape[: lane.dimensions.value])
        self._lanes.append(lane)
        if outputs != self._outputs:
            raise Corrupted(f"The booster has {outputs} outputs, the signature {self._outputs}.")

    def _objective(self) -> str:
        length, text = ctypes.c_uint64(), ctypes.c_char_p()
        self._check(self._library.XGBoosterSaveJsonConfig(self._booster, ctypes.byref(length), ctypes.byref(text)))
        return str(json.loads(text.value or b"{}")["learner"]["objective"]["name"])

    def _check(self, status: int) -> None:
        if status != 0:
            words = self._library.XGBGetLastError().decode(errors="replace").split("Stack trace:")[0].strip()
            raise Corrupted(f"XGBoost refused: {words}")


class _Lane:
    """What one call of one row needs: its values, their description, and where XGBoost puts the answer.

    The proxy stands for the values; without one XGBoost makes one for each call, and reads files of /sys for it.
    """

    __slots__ = ("answers", "array", "data", "dimensions", "found", "proxy", "put", "shape")

    def __init__(self, proxy: ctypes.c_void_p, width: int) -> None:
        self.proxy = proxy
        self.data = (ctypes.c_double * width)()
        self.put = Struct(f"{width}d").pack_into
        self.array = _array(self.data, 1, width)
        self.shape, self.dimensions = _shape(), ctypes.c_uint64()
        self.answers = ctypes.POINTER(ctypes.c_float)()
        self.found = (ctypes.byref(self.shape), ctypes.byref(self.dimensions), ctypes.byref(self.answers))


def _array(data: Any, n_rows: int, n_columns: int) -> bytes:
    """Where the values are, by NumPy's array interface."""
    place = [ctypes.addressof(data), True]
    return json.dumps({"data": place, "shape": [n_rows, n_columns], "typestr": "<f8", "version": 3}).encode()


def _shape() -> Any:
    return ctypes.POINTER(ctypes.c_uint64)()


def _encoders(signature: Signature, categories: Categories) -> list[dict[object, float] | None]:
    """Per input the codes of its categories as in the model's frame, None for a number."""
    encoders: list[dict[object, float] | None] = []
    for column in signature.inputs:
        if column.type is ColumnType.TIME:
            raise Invalid(f"column {column.name!r}: XGBoost takes no times")
        if column.type is not ColumnType.TEXT:
            encoders.append(None)
        elif column.name in categories:
            encoders.append({value: float(code) for code, value in enumerate(categories[column.name])})
        else:
            raise Corrupted(f"The bundle has no categories of the text column {column.name!r}.")
    return encoders


@cache
def _library() -> tuple[ctypes.CDLL, Any]:
    """XGBoost's C library, and its prediction that keeps the interpreter's lock."""
    path = find_library("xgboost", "*xgboost.*", "Install Relevo with its extra: pip install 'relevo[xgboost]'.")
    library = ctypes.CDLL(str(path))
    library.XGBGetLastError.restype = ctypes.c_char_p
    pointer, text, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint64
    library.XGBoosterCreate.argtypes = [pointer, size, pointer]
    library.XGBoosterLoadModelFromBuffer.argtypes = [pointer, text, size]
    library.XGBoosterSetParam.argtypes = [pointer, text, text]
    library.XGBoosterGetNumFeature.argtypes = [pointer, pointer]
    library.XGBoosterSaveJsonConfig.argtypes = [pointer, pointer, pointer]
    library.XGDMatrixCreateFromDense.argtypes = [text, text, pointer]
    library.XGDMatrixSetStrFeatureInfo.argtypes = [pointer, text, pointer, size]
    library.XGBoosterPredictFromDMatrix.argtypes = [pointer, pointer, text, pointer, pointer, pointer]
    library.XGBoosterFree.argtypes = [pointer]
    library.XGProxyDMatrixCreate.argtypes = [pointer]
    library.XGDMatrixFree.argtypes = [pointer]
    library.XGBoosterPredictFromDense.argtypes = [pointer, text, text, pointer, pointer, pointer, pointer]
    held = ctypes.PyDLL(str(path)).XGBoosterPredictFromDense
    held.argtypes = library.XGBoosterPredictFromDense.argtypes
    return library, held
