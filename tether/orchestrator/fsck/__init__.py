"""Whether the two stores agree with each other and with themselves, found by reading alone."""
