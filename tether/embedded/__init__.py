"""Servers that Tether runs itself, for `tether up`, tests and benchmarks."""
