"""Whether requests are traced: as OpenTelemetry's own environment variables say, decided once, when a worker starts.

Without them nothing of OpenTelemetry is imported and no request passes through any of it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

from relevo.errors import Invalid, Unavailable

if TYPE_CHECKING:
    from relevo.serving.traces import Traces

#: Where traces go; the first wins.
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
_RATIOS = ("traceidratio", "parentbased_traceidratio")
_SAMPLERS = ("always_on", "always_off", "parentbased_always_on", "parentbased_always_off", *_RATIOS)


def is_configured(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment says where traces go, and does not turn them off.

    >>> is_configured({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"})
    True
    """
    is_off = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    is_none = environment.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() == "none"
    return any(environment.get(name) for name in ENDPOINTS) and not (is_off or is_none)


def check(environment: Mapping[str, str] = os.environ) -> None:
    """Refuse a configuration that would send no traces, or others than it says.

    Raises:
        Invalid: A variable names a protocol or a sampler that is not there.
        Unavailable: The extra ``otel`` is not installed.
    """
    if not is_configured(environment):
        return
    name = next(name for name in ENDPOINTS if environment.get(name))
    if not all(map(_is_installed, ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"))):
        raise Unavailable(f"{name} is set, and traces need an extra: pip install 'relevo[otel]'.")
    for variable in _PROTOCOLS:
        protocol = environment.get(variable, _PROTOCOL).strip().lower()
        if protocol != _PROTOCOL:
            raise Invalid(f"{variable}: expected {_PROTOCOL}, got {protocol!r}.", field=variable)
    sampler = environment.get("OTEL_TRACES_SAMPLER", "parentbased_always_on").strip().lower()
    if sampler not in _SAMPLERS:
        expected = ", ".join(_SAMPLERS)
        raise Invalid(f"OTEL_TRACES_SAMPLER: expected one of {expected}, got {sampler!r}.", field="OTEL_TRACES_SAMPLER")
    share = environment.get("OTEL_TRACES_SAMPLER_ARG", "1.0")
    if sampler in _RATIOS and not _is_share(share):
        message = f"OTEL_TRACES_SAMPLER_ARG: expected a number from 0 to 1, got {share!r}."
        raise Invalid(message, field="OTEL_TRACES_SAMPLER_ARG")


def open_traces(worker: int) -> Traces | None:
    """The traces of this process; None when they are not configured.

    Raises:
        Invalid, Unavailable: As ``check``.
    """
    check()
    if not is_configured():
        return None
    from relevo.serving.traces import Traces

    return Traces(worker)


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # of a package above it
        return False


def _is_share(text: str) -> bool:
    try:
        return 0.0 <= float(text) <= 1.0
    except ValueError:
        return False
