"""Connect a command to the exchange as the venue. Called by the command files."""

from typing import TYPE_CHECKING

from smrx.cli import options

if TYPE_CHECKING:
    from smrx.client import Client

#: The account of the venue: its sessions may act for every other account.
VENUE = 0


def connect(*, bulk: bool = False) -> "Client":
    """Return a client with the rights of the venue, for the configuration of the running command.

    With `bulk`, it may have many commands unanswered. Use it as a context manager.
    """
    from smrx.client import Client
    from smrx.client.session import BULK_WINDOW, DEFAULT_WINDOW

    return Client(options.config(), account=VENUE, window=BULK_WINDOW if bulk else DEFAULT_WINDOW)
