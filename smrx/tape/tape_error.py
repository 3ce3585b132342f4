"""The error of this package."""


class TapeError(Exception):
    """A tape cannot be used; the message has the file, the line or field, and the reason."""
