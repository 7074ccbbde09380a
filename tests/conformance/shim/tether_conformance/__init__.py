"""Runs the tests of Dramatiq's source distribution with TetherBroker in place of RedisBroker."""
