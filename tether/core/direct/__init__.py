"""The backend of programs that talk to the database and Redis themselves, one port a module."""
