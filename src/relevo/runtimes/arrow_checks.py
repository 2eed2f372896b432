"""What has to hold of Arrow batches before their values are made: offsets, indices, UTF-8, and text that rows share.

Batches mostly name one dictionary. It is looked at once, or a large one with many small batches would take seconds.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from relevo.errors import TooLarge
from relevo.runtimes.arrow_sizes import Broken

#: Where the buffers of a dictionary lie, and which part of them it is. They stay there as long as a batch names it.
_Place = tuple[int, ...]


class Checks:
    """The checks of one request.

    Args:
        max_bytes: Of all text, once each row has its own, and of all dictionaries; None: any.
    """

    def __init__(self, max_bytes: int | None) -> None:
        self._max_bytes = max_bytes
        self._text_bytes = 0
        self._dictionary_bytes = 0
        self._lengths: dict[_Place, NDArray[Any]] = {}

    def check(self, batch: Any) -> None:
        """Look at a batch. It has to live as long as these checks, and the next is read when this one is good.

        Raises:
            ArrowInvalid: A batch is not what its schema says; an error of pyarrow's.
            Broken: An index lies beyond its dictionary.
            TooLarge: Text is short here and long as rows: many share a value of a dictionary, or the bytes of a view.
                Or a dictionary grows from batch to batch, and each has a copy of it.
        """
        batch.validate()
        for array in batch.columns:
            if hasattr(array, "dictionary"):
                self._count(self._shared(array))
            else:
                array.validate(full=True)
                if str(array.type) == "string_view":
                    self._count(lengths_of(array))

    def _shared(self, array: Any) -> NDArray[Any]:
        """The bytes of each row's text in a column with a dictionary."""
        dictionary = array.dictionary
        addresses = (0 if buffer is None else buffer.address for buffer in dictionary.buffers())
        place = (*addresses, dictionary.offset, len(dictionary))
        lengths = self._lengths.get(place)
        if lengths is None:
            array.validate(full=True)
            self._dictionary_bytes += dictionary.nbytes
            if self._max_bytes is not None and self._dictionary_bytes > self._max_bytes:
                message = (
                    f"The dictionaries of a body have at most {self._max_bytes:,} bytes, copies for deltas included."
                )
                raise TooLarge(message)
            lengths = self._lengths[place] = lengths_of(dictionary)
        array.indices.validate(full=True)
        indices = plain(array.indices.drop_null())
        if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < len(lengths):
            raise Broken("an index lies beyond its dictionary")
        return cast(NDArray[Any], lengths[indices])

    def _count(self, lengths: NDArray[Any]) -> None:
        self._text_bytes += int(lengths.sum(dtype=np.int64))
        if self._max_bytes is not None and self._text_bytes > self._max_bytes:
            raise TooLarge(f"A body has at most {self._max_bytes:,} bytes once each row has its text.")


def lengths_of(array: Any) -> NDArray[Any]:
    """The bytes of each text of a valid array; 0 where there is none."""
    if len(array) == 0:
        return np.zeros(0, dtype=np.int64)
    first, end = array.offset, array.offset + len(array)
    if str(array.type) == "string_view":  # 16 bytes each, which start with the length
        lengths = np.frombuffer(array.buffers()[1], "<i4").reshape(-1, 4)[first:end, 0]
    else:
        kind = "<i8" if str(array.type) == "large_string" else "<i4"
        lengths = np.diff(np.frombuffer(array.buffers()[1], kind)[first : end + 1])
    return np.where(nulls_of(array), 0, lengths)


def nulls_of(array: Any) -> NDArray[Any]:
    """Whether each value is null."""
    return cast(NDArray[Any], array.is_null().to_numpy(zero_copy_only=False))


def plain(array: Any) -> NDArray[Any]:
    """The values of an array without nulls."""
    return cast(NDArray[Any], array.to_numpy(zero_copy_only=False))
