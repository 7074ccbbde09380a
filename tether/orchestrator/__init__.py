"""The loops that carry jobs between the database and Redis: all start, stop and hand over alike."""
