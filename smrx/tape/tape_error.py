"""What is wrong with a tape, in one sentence; raised by every module of this package."""


class TapeError(Exception):
    """A tape cannot be used; the message names the file and the place, what was expected and what was found."""
