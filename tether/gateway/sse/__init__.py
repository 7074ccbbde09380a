"""Jobs' streams as server-sent events."""
