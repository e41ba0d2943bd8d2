"""Reqon: keep your own copy of other people's data right."""

from reqon.__about__ import __version__ as __version__
