"""Tether: a task queue for model inference over GPUs anywhere."""

__version__ = "0.1.0"
