"""Sources of telemetry. One file = one receiver; type id = file name.

May import: otlp, component and below, never a sibling.
Never here: Queues, processors, backends.
"""
