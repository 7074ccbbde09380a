"""The attempts of a worker process: their tokens, their leases, and how they are handed over."""
