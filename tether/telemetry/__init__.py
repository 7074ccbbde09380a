"""Logs, metrics and traces: the one place where Tether says what it does."""
