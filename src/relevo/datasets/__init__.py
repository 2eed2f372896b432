"""Datasets: what a team's loaders gave, kept as numbered versions of Delta tables.

A load calls the loader in a child process, cuts what was not known by the asked time, refuses what cannot be right, and
writes a new version when the content differs from the last one. The state store remembers each version with its digest
and the code that made it.
"""
