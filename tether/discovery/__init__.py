"""Which workers there are: what they announce, and the view of all of it."""
