"""The verbs about pools."""
