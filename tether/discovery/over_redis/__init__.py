"""Presence over Redis: announced there, read from there, and mirrored there from elsewhere."""
