"""Steps to code: one module per kind of step writes the statements that do it, and holds what they call."""
