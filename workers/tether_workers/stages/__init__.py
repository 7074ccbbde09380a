"""The stages of a drawn job in a slot, one module each: their row stands in ``tether_workers.inference``."""
