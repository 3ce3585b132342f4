"""Open the feed of `updates()` and translate its errors. Called by both clients.

The feed is received from all nodes, attested by a majority, and independent of the session: it needs no leader.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

from smrx.client.client_errors import InvalidValue, ProtocolError, Unavailable
from smrx.client.command_builders import u64
from smrx.client_keys import ClientKeys
from smrx.config import Config
from smrx.feed.account_feed import AccountFeed
from smrx.feed.feed_errors import Disagreement, FeedError
from smrx.feed.subscriber import Endpoint
from smrx.feed.subscription import Own, checked_accounts

#: How long one wait for events takes, and so how late an end is noticed.
WAIT_S = 0.2


class UpdateRequest:
    """The checked arguments of `updates()`. Raises InvalidValue."""

    def __init__(
        self,
        config: Config | None,
        from_sequence: int | None,
        accounts: Iterable[int] | Literal["all"],
        idle: float | None,
        keys: ClientKeys | None = None,
    ) -> None:
        if config is None:
            raise InvalidValue("updates: expected a client that was created with a Config, which names all nodes")
        if idle is not None and not idle > 0:
            raise InvalidValue(f"idle: expected more than 0 seconds, found {idle}")
        try:
            self._accounts = Own.ACCOUNTS if accounts == "all" else checked_accounts(accounts)
        except (TypeError, ValueError) as error:
            raise InvalidValue(str(error)) from None
        if from_sequence is not None and u64(from_sequence, "from_sequence") == 0:
            raise InvalidValue("from_sequence: expected at least 1, found 0")
        self.idle = idle
        self._first = from_sequence
        self._config = config
        self._keys = keys

    @contextmanager
    def feed(self) -> Iterator[AccountFeed]:
        """Connect; raise ClientError for the errors of the feed; close it in the end."""
        nodes = self._config.nodes
        feed = AccountFeed(
            [Endpoint(node.id, node.events_address) for node in nodes],
            len(nodes),
            self._accounts,
            self._first,
            self._keys,
        )
        try:
            yield feed
        except Disagreement as error:
            raise ProtocolError(f"updates: {error}") from None
        except FeedError as error:
            raise Unavailable(f"updates: {error}") from None
        finally:
            feed.close()
