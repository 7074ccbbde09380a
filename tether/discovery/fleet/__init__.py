"""The fleet as one process knows it, made of what its sources hear."""
