"""Change, price, sample or redact batches. One file (or folder) = one processor; type id = file name.

May import: otlp, component and below, never a sibling.
Never here: Sockets, clocks, asyncio - time is an argument.
"""
