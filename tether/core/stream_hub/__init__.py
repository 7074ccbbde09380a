"""One reader for all the streams that a process follows."""
