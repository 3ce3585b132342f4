"""Connect a command to the exchange as the venue. Called by the command files."""

from typing import TYPE_CHECKING

from smrx.cli import options

if TYPE_CHECKING:
    from smrx.client import Client

#: The account of the venue: its sessions may act for every other account.
VENUE = 0


def connect(account: int = VENUE, *, bulk: bool = False) -> "Client":
    """Return a client for the configuration and the key of the running command. Use it as a context manager.

    `account`: for which the command acts. Without a key the client has the rights of the venue; a key may be that of
    one account only. With `bulk`, it may have many commands unanswered.
    """
    from smrx.client import Client
    from smrx.client.session import BULK_WINDOW, DEFAULT_WINDOW

    key = options.key_path()
    window = BULK_WINDOW if bulk else DEFAULT_WINDOW
    return Client(options.config(), account=VENUE if key is None else account, window=window, key=key)
