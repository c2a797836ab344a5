"""The wire format - bytes to batch and back, JSON mapping, answers, decompression.

May import: component and below.
Never here: Sockets, asyncio, settings of one component.
"""
