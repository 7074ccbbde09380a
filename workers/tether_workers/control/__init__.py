"""What changes whether a worker takes jobs: its own state, and the commands of operators."""
