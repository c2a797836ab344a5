"""Things beside the pipelines, such as health endpoints. One file = one extension.

May import: otlp, component and below, never a sibling.
Never here: Telemetry that was not redacted.
"""
