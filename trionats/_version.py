"""The version, read by the build and said to the server."""

__version__ = "0.1.0.dev0"
