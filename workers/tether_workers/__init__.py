"""Worker processes: what runs jobs, and what keeps it running."""
