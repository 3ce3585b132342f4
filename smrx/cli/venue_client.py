"""How commands reach the exchange: a client of the venue's account. Called by the commands."""

from typing import TYPE_CHECKING

from smrx.cli import options

if TYPE_CHECKING:
    from smrx.client import Client

#: The venue's own account: its session may act for every other, as an operator at a terminal does.
VENUE = 0


def connect() -> "Client":
    """A client of the venue, of the running command's configuration. Use as a context manager."""
    from smrx.client import Client

    return Client(options.config(), account=VENUE)
