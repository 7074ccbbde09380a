"""Access to Redis: connections, groups of readers."""
