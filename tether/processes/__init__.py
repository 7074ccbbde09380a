"""Supervised child processes: started, watched, restarted, and ended with their parent."""
