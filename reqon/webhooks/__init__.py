"""Receiving what APIs call back with: the endpoints of executions, and the server in front of them."""
