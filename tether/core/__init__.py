"""What gateway, orchestrator and direct clients share."""
