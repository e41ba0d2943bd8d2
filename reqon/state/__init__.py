"""What is remembered of runs."""
