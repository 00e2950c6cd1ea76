"""OpenTelemetry's variables: whether traces and metrics are sent by OTLP, as its specification says."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Literal

Signal = Literal["traces", "metrics"]


def sends(signal: Signal, environ: Mapping[str, str]) -> bool:
    """True if ``OTEL_EXPORTER_OTLP_ENDPOINT`` (or the signal's own) names an endpoint, and the extra ``otel`` is there.

    ``OTEL_TRACES_EXPORTER=none``, ``OTEL_METRICS_EXPORTER=none`` and ``OTEL_SDK_DISABLED=true`` switch off.
    """
    name = signal.upper()
    endpoint = environ.get(f"OTEL_EXPORTER_OTLP_{name}_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    is_off = environ.get(f"OTEL_{name}_EXPORTER") == "none" or environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    return bool(endpoint) and not is_off and find_spec("opentelemetry.sdk") is not None
