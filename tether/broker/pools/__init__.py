"""Pools of inference jobs, from the side of the database and from the workers' side."""
