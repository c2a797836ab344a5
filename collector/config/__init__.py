"""YAML, variables and flags to checked settings; every problem with its position.

May import: pipeline and below.
Never here: Running anything, opening ports.
"""
