"""`python -m reqon`: the same as `reqon`."""

from reqon.cli.main import main

main()
