"""`tether dlq`: dead letters."""
