"""Changes of many jobs at once, over HTTP."""
