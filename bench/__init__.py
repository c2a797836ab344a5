"""Measurements: `make bench`. Not part of the program."""
