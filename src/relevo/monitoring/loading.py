"""What the gateway says of the versions that it was asked to load, as a verdict: a refused bundle is an alert."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from relevo.monitoring.model import AlertKind, Finding, Severity

_FAILED = "failed: "
_LOADING = "loading"


def loading_finding(endpoint: str, said: Mapping[int, Sequence[str]], answering: Sequence[int]) -> Finding:
    """Whether a version is refused, and why.

    The alert ends once every version is loaded, or no longer asked for; a worker that is still at it says nothing yet.

    Args:
        endpoint: Whose versions.
        said: The state of each version at each live worker: ``ready``, ``loading`` or ``failed: why``.
        answering: The versions that take traffic.

    >>> loading_finding("flight-delay", {3: ["ready"], 4: ["failed: linear.json was changed."]}, [3]).message
    'The gateway refuses flight-delay/4: linear.json was changed. Version 3 answers as before.'
    """
    refused = {version: why for version, states in sorted(said.items()) if (why := _why(states)) is not None}
    is_waiting = any(_LOADING in states for states in said.values())
    sentences = [f"The gateway refuses {endpoint}/{version}: {why}" for version, why in refused.items()]
    others = [version for version in answering if version not in refused]
    if others:
        versions = " and ".join(str(version) for version in others)
        plural = len(others) > 1
        sentences.append(f"Version{'s' if plural else ''} {versions} answer{'' if plural else 's'} as before.")
    elif answering:
        sentences.append("No other version answers.")
    is_raised = True if refused else None if is_waiting else False
    return Finding(AlertKind.BUNDLE, Severity.CRITICAL, is_raised, " ".join(sentences))


def is_refused(said: Mapping[int, Sequence[str]]) -> bool:
    """Whether a worker refuses one of the versions."""
    return any(_why(states) is not None for states in said.values())


def _why(states: Sequence[str]) -> str | None:
    """The reason that the first worker which refused it gives."""
    return next((state.removeprefix(_FAILED) for state in states if state.startswith(_FAILED)), None)
