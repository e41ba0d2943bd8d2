"""One conversation with one API."""
