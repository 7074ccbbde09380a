"""What workers announce of themselves: the values, and how they are written and signed."""
