"""A checked program to a run."""
