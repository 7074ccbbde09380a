"""A worker's announcements: heartbeats, and the models and adapters that it has loaded or stored."""
