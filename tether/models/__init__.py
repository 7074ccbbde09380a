"""The configured models: versions, digests, and the names of their pools."""
