"""The routes for those who watch over the gateway."""
