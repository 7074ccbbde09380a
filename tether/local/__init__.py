"""A whole Tether on one machine: what `tether up` runs, and the servers it brings along."""
