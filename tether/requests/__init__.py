"""What a client can ask for, checked by the same rules at every door."""
