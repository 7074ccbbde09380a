"""The client that talks to a gateway over HTTP."""
