"""`tether policies`: what tenants may do."""
