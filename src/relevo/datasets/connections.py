"""Connections of queries: their URLs are in the environment of the control plane, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from relevo.contract.model import Source


def variable(connection: str) -> str:
    """The variable that holds the URL of a connection.

    >>> variable("warehouse")
    'RELEVO_CONNECTION_WAREHOUSE'
    """
    return f"RELEVO_CONNECTION_{connection.upper()}"


def variables(sources: Iterable[Source], environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that a job needs to load these sources. What is not set is left out: the load says so."""
    wanted = [variable(source.connection) for source in sources if source.connection]
    return {name: environment[name] for name in wanted if name in environment}
