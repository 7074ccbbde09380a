"""The swarm: a Node process with Hyperswarm, and what Python says to it."""
