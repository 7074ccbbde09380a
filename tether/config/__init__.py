"""Settings: their sections, the models among them, and loading them from a file and the environment."""
