"""Queues of plain Dramatiq actors."""
