"""Connect a command to the exchange as the venue. Called by the command files."""

from typing import TYPE_CHECKING

from smrx.cli import options

if TYPE_CHECKING:
    from smrx.client import Client

#: The account of the venue: its sessions may act for every other account.
VENUE = 0


def connect() -> "Client":
    """Return a client with the rights of the venue, for the configuration of the running command.

    Use it as a context manager.
    """
    from smrx.client import Client

    return Client(options.config(), account=VENUE)
