"""otel-sidecar: an OpenTelemetry collector that runs next to each container. The map of the code is README.md in this folder."""

__version__ = "0.1.0"
