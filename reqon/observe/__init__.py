"""Subscribers that show what happens: logs, progress bars."""
