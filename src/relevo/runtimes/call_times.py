"""How long a call of a model takes, learned from the calls that it has answered."""

from __future__ import annotations

#: What a call counts when the next one is seen: about the last twenty decide.
_KEPT = 0.95
#: Rows of a call before any is known, and by how much a call may be larger than any that is known.
_FIRST_ROWS = 32
_GROWTH = 2


class CallTimes:
    """A line through time over rows, by least squares in which recent calls weigh more. One thread writes, any reads.

    A model that is asked row by row takes as long as it has rows; one of vectors hardly longer for a thousand. So calls
    grow step by step, at most twofold, and nothing is said of sizes far from those that were seen.
    """

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self._weight = self._rows = self._seconds = self._squares = self._products = 0.0
        self._line = (0.0, 0.0)
        self.largest_rows = min(_FIRST_ROWS, max_rows)

    def add(self, rows: int, seconds: float) -> None:
        """A call of so many rows took so long."""
        self._weight = self._weight * _KEPT + 1
        self._rows = self._rows * _KEPT + rows
        self._seconds = self._seconds * _KEPT + seconds
        self._squares = self._squares * _KEPT + rows * rows
        self._products = self._products * _KEPT + rows * seconds
        self.largest_rows = min(self._max_rows, max(self.largest_rows, _GROWTH * rows))
        mean_rows, mean_seconds = self._rows / self._weight, self._seconds / self._weight
        spread = self._squares / self._weight - mean_rows * mean_rows
        slope = 0.0
        if spread > 1e-6 * mean_rows * mean_rows:
            slope = (self._products / self._weight - mean_rows * mean_seconds) / spread
        slope = min(max(slope, 0.0), mean_seconds / mean_rows)  # neither does a call cost less than nothing
        self._line = mean_seconds - slope * mean_rows, slope

    @property
    def fixed_seconds(self) -> float:
        """What a call costs however few rows it has; 0 while no call is known."""
        return max(0.0, self._line[0])

    def knows(self, rows: int) -> bool:
        """Whether a call of so many rows was seen, or is one of the first."""
        return _GROWTH * rows <= self.largest_rows

    def expected(self, rows: int) -> float:
        """Seconds until so many rows are answered, in as many calls as they need; 0 while no call is known.

        >>> times = CallTimes(1_000)
        >>> for rows in (10, 20):
        ...     times.add(rows, 0.1 + 0.001 * rows)
        >>> round(times.expected(100), 3), round(times.expected(2_000), 3)
        (0.2, 2.2)
        """
        once, each = self._line
        return once * -(-rows // self._max_rows) + each * rows
