"""Builds a running service from checked settings; reload, drain, own telemetry.

May import: everything below.
Never here: Command line parsing, component logic.
"""
