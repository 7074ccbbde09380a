"""API keys: who calls, and the routes that make, list and revoke keys."""
