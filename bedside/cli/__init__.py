"""The command `bedside`."""

from bedside.cli.main import main

__all__ = ["main"]
