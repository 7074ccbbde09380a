"""Whose word counts: the keys of this process, and those that were enrolled."""
