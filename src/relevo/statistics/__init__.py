"""Pure functions on arrays: metrics, intervals, bins, distances and tests. Arrays in, numbers out.

Nothing here reads or writes, and nothing of Relevo is imported.
"""
