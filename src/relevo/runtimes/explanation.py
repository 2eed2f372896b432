"""What each input adds to an answer: the language in which a runtime explains, and sampling where it has none.

A linear model and boosted trees say it themselves, exactly, in microseconds or milliseconds. Of any other the original
model is asked about mixtures of the row with rows of the holdout, in a child process of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from relevo.runtimes.model import Link, Signature, timed

if TYPE_CHECKING:
    import numpy as np

#: Holdout rows in the bundle of a version that is explained by sampling, ``(n_rows, n_inputs)``.
BACKGROUND_FILE = "runtime/background.json"
BACKGROUND_ROWS = 30

#: Orders of the inputs that are sampled, each with its reverse.
PAIRS = 8
_SEED = 7
#: Rows that the model is asked at once.
_PART = 20_000


class Explanation(msgspec.Struct, frozen=True):
    """Contributions to the answers for some rows.

    Attributes:
        link: The prediction is the link of base plus contributions.
        base: Per row what is answered before any input is known: a number, or one a class for more than two classes.
        contributions: Per row and input the same shape as the base, in the signature's order.
    """

    link: Link
    base: Sequence[float | list[float]]
    contributions: Sequence[Sequence[float | list[float]]]


class Explaining(Protocol):
    """A runtime that explains its own answers."""

    def explain(self, rows: Sequence[Sequence[object]]) -> Explanation:
        """The contributions to the answers for rows ``(n_rows, n_inputs)``."""
        ...


def read_background(folder: Path, signature: Signature) -> list[list[Any]]:
    """The rows of ``BACKGROUND_FILE`` in the bundle; none when it has no such file."""
    path = folder / BACKGROUND_FILE
    rows = msgspec.json.decode(path.read_bytes(), type=list[list[Any]]) if path.is_file() else []
    return [timed(row, signature) for row in rows]


def explanation_of(flat: Sequence[Sequence[float]], signature: Signature, link: Link) -> Explanation:
    """From rows of contributions of the inputs and then the base, for each class in turn, as tree libraries give them.

    Args:
        flat: ``(n_rows, n_outputs * (n_inputs + 1))``.
        signature: Says how many inputs and outputs there are.
        link: Of the model.
    """
    width = len(signature.inputs) + 1
    if len(signature.classes) <= 2:
        return Explanation(link, [row[width - 1] for row in flat], [list(row[: width - 1]) for row in flat])
    n_classes = len(signature.classes)
    starts = [width * place for place in range(n_classes)]
    return Explanation(
        link,
        [[row[start + width - 1] for start in starts] for row in flat],
        [[[row[start + place] for start in starts] for place in range(width - 1)] for row in flat],
    )


def sampled(
    predict: Callable[[list[list[object]]], np.ndarray],
    rows: Sequence[Sequence[Any]],
    background: Sequence[Sequence[Any]],
) -> list[list[float]]:
    """Contributions by sampling, in the flat form of ``explanation_of``.

    Args:
        predict: The model: rows to answers ``(n_rows,)`` or ``(n_rows, n_classes)``.
        rows: What is to be explained, ``(n_rows, n_inputs)``.
        background: Rows that stand for what is not known, ``(n_background, n_inputs)``.
    """
    import numpy as np

    from relevo.statistics.shapley import shapley_values

    flat = []
    for row in rows:

        def worth(masks: Any, row: Sequence[Any] = row) -> Any:
            """The mean answer over the background with the known inputs of the row in their place."""
            part = max(1, _PART // len(background))
            means = []
            for start in range(0, len(masks), part):
                known = masks[start : start + part].tolist()
                mixed = [
                    [mine if is_known else theirs for mine, theirs, is_known in zip(row, other, mask, strict=True)]
                    for mask in known
                    for other in background
                ]
                answers = predict(mixed).reshape(len(known), len(background), -1)
                means.append(answers.mean(axis=1))
            return np.concatenate(means)

        random = np.random.default_rng(_SEED)
        base, added = shapley_values(worth, len(row), pairs=PAIRS, random=random)
        flat.append([float(value) for output in range(len(base)) for value in (*added[:, output], base[output])])
    return flat
