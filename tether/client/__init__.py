"""The Python API: submit jobs, follow their streams, wait for their results."""
