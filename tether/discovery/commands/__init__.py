"""What operators tell workers: the commands, how they are signed, and the ways they come."""
