"""The verbs about workers."""
