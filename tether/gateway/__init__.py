"""The edge: what comes in is checked here."""
