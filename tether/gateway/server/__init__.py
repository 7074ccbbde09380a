"""The HTTP server itself: its socket, its protocol, its limits, and what every request passes through."""
