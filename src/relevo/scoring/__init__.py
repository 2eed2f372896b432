"""Bulk scoring: a version's answers for every row of a table, in child processes, resumable, in constant memory.

The control plane says which version answers and loads what its views look up (``service``). The command does the rest
on the files of who calls it: it cuts the input into chunks (``inputs``), and children score each (``child``).
"""
