"""The events of a job's stream: how they are written, and what a reader makes of them."""
