"""What operators see and do across tenants: the routes under ``/v1/operator``."""
