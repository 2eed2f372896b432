"""The one frame that a model sees: training, agreement and the isolated child all build it here.

pandas is imported inside the functions: the gateway imports this package and must stay without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from relevo.runtimes.model import Categories, Column, ColumnType, FrameType, Signature

if TYPE_CHECKING:
    import pandas as pd


class Framer:
    """Makes frames of one signature; what every frame of it shares is made once.

    Columns stand in the signature's order. Numbers, integers and booleans are float64 with NaN for null, in training as
    in serving, so that a null never changes the type of a column. Text is categorical with the training categories; a
    value that is not among them becomes NaN. Times are datetime64[us, UTC].

    A column with a ``dtype`` has that one instead: text is plain, integers are integers, times are naive UTC.
    """

    def __init__(self, signature: Signature, categories: Categories) -> None:
        self._columns = signature.inputs
        self._texts = {
            column.name: _Text(categories.get(column.name, ()))
            for column in signature.inputs
            if column.type is ColumnType.TEXT and column.dtype is None
        }

    def of_rows(self, rows: Sequence[Sequence[object]]) -> pd.DataFrame:
        """Rows of values, None is null."""
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(self._columns)
        return self.of_columns({column.name: values for column, values in zip(self._columns, columns, strict=True)})

    def of_columns(self, columns: Mapping[str, Any]) -> pd.DataFrame:
        """Whole columns: sequences, numpy arrays, or Polars series. Other columns are left out."""
        import pandas as pd

        return pd.DataFrame(
            {column.name: self._values(column, columns[column.name]) for column in self._columns}, copy=False
        )

    def _values(self, column: Column, values: Any) -> Any:
        text = self._texts.get(column.name)
        return _values(column, values) if text is None else text.of(values)


class _Text:
    """A text column's categories."""

    def __init__(self, known: Sequence[str]) -> None:
        import pandas as pd

        self._codes = {value: code for code, value in enumerate(known)}
        self._dtype = pd.CategoricalDtype(pd.Index(list(known), dtype="str"))

    def of(self, values: Any) -> pd.Categorical:
        """The values as categories; those that are not known are missing."""
        import numpy as np
        import pandas as pd

        plain = values.to_list() if hasattr(values, "to_list") else values
        codes = np.array([self._codes.get(value, -1) for value in plain], dtype=np.int32)
        return pd.Categorical.from_codes(codes, dtype=self._dtype)


def as_frame(rows: Sequence[Sequence[object]], signature: Signature, categories: Categories) -> pd.DataFrame:
    """Rows of values (None is null) as the frame that the model is fitted on and asked with, see ``Framer``."""
    return Framer(signature, categories).of_rows(rows)


def frame_of_columns(columns: Mapping[str, Any], signature: Signature, categories: Categories) -> pd.DataFrame:
    """As ``as_frame``, from whole columns, see ``Framer``."""
    return Framer(signature, categories).of_columns(columns)


def rows_of_frame(frame: pd.DataFrame, signature: Signature) -> list[list[object]]:
    """The rows of a model frame as request values: the reverse of ``as_frame``, but for unseen categories."""
    columns = [_requested(column, frame[column.name]) for column in signature.inputs]
    return [list(row) for row in zip(*columns, strict=True)]


def categories_of(columns: Mapping[str, Any], signature: Signature) -> dict[str, list[str]]:
    """The categories of each text input in the training set: its distinct values without null, sorted."""
    return {
        column.name: sorted({str(value) for value in _distinct(columns[column.name]) if _is_text(value)})
        for column in signature.inputs
        if column.type is ColumnType.TEXT
    }


def _distinct(values: Any) -> Iterable[object]:
    return values.unique() if hasattr(values, "unique") else set(values)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _values(column: Column, values: Any) -> Any:
    import numpy as np
    import pandas as pd

    if column.dtype is not None:
        return _plain(column.dtype, values)
    if column.type is ColumnType.TIME:
        plain = values.to_list() if hasattr(values, "to_list") else list(values)
        return pd.Series(pd.to_datetime(plain, utc=True)).dt.as_unit("us").array
    numbers = values.to_numpy() if hasattr(values, "to_numpy") else values
    if not isinstance(numbers, np.ndarray) or numbers.dtype.kind == "O":
        return np.array([np.nan if value is None else float(value) for value in numbers], dtype=np.float64)
    return np.asarray(numbers, dtype=np.float64)


def _plain(dtype: FrameType, values: Any) -> Any:
    """A column as MLflow's schema enforcement leaves it; raises where that has no place for a value, such as a null."""
    import numpy as np
    import pandas as pd

    plain = values.to_list() if hasattr(values, "to_list") else list(values)
    match dtype:
        case "str":
            # The type that this pandas gives to text: that which the model saw, when it saw the same pandas.
            return pd.Series(plain, dtype=None if any(value is not None for value in plain) else object).array
        case "datetime64[ns]":
            return pd.Series(pd.to_datetime(plain, utc=True)).dt.tz_localize(None).dt.as_unit("ns").array
        case "float32" | "float64":
            return np.array([np.nan if value is None else value for value in plain], dtype=dtype)
        case _:
            if None in plain:
                raise ValueError(f"a column of {dtype} has no place for a null")
            return np.array(plain, dtype=dtype)


def _requested(column: Column, values: pd.Series[Any]) -> list[object]:
    nulls = values.isna().to_numpy()
    plain = values.astype(object).to_list()
    match column.type:
        case ColumnType.INTEGER:
            return [None if null else int(value) for value, null in zip(plain, nulls, strict=True)]
        case ColumnType.BOOLEAN:
            return [None if null else bool(value) for value, null in zip(plain, nulls, strict=True)]
        case ColumnType.FLOAT:
            return [None if null else float(value) for value, null in zip(plain, nulls, strict=True)]
        case ColumnType.TIME:
            return [None if null else _aware(value) for value, null in zip(plain, nulls, strict=True)]
        case ColumnType.TEXT:
            return [None if null else str(value) for value, null in zip(plain, nulls, strict=True)]


def _aware(time: Any) -> datetime:
    """A naive time of a frame is UTC."""
    plain: datetime = time.to_pydatetime()
    return plain if plain.tzinfo is not None else plain.replace(tzinfo=UTC)
