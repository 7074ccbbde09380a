"""The routes of dead letters: a tenant's, and all tenants' for operators."""
