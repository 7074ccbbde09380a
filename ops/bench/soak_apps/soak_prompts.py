"""What a prompt of the soak asks its engine for."""

from __future__ import annotations

REFUSED = "refuse"
"""First word of a prompt that is refused."""

BROKEN = "break"
"""First word of a prompt whose every attempt fails after some tokens."""
