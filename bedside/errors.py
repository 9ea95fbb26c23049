"""What the command line says when something is wrong: one clear line."""


class BedsideError(Exception):
    """Root of this package's errors; its message is what the user reads."""
