"""The command line: parses flags, renders, picks the exit code."""
