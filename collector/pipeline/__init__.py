"""The processor chain, fan-out, queues, retry, admission and accounting.

May import: catalog and below, but no concrete component.
Never here: YAML, sockets, knowledge of one component.
"""
