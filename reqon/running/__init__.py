"""One execution, from the request for it to its terminal record."""
