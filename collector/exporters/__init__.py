"""Send payloads to one kind of backend. One file = one exporter; type id = file name.

May import: otlp, component and below, never a sibling.
Never here: Queues, retries, counters of delivery - the pipeline owns them.
"""
