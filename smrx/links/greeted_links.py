"""Greet each new connection before its owner sees it.

Owns the connections whose greeting is not complete. Stands between a connection and its owner: the owner learns of a
connection once its greeting is complete, with the key of the other end in `peer_key`. For listeners and dialers alike.
"""

from collections.abc import Callable

from smrx.links.connection import Connection, Owner
from smrx.links.greeting import ClientGreeting, GreetingError, ServerGreeting
from smrx.links.listener import Listener


class GreetedLinks:
    """An Owner that greets, and passes on to another."""

    def __init__(self, owner: Owner, greet: Callable[[Connection], ClientGreeting | ServerGreeting]) -> None:
        """`greet` makes the greeting of a connection; it may raise GreetingError."""
        self._owner = owner
        self._greet = greet
        self._greetings: dict[Connection, ClientGreeting | ServerGreeting] = {}
        #: The listener whose connections these are, None for the side that dials.
        self.listener: Listener | None = None

    def opened(self, connection: Connection) -> None:
        """See Owner."""
        try:
            greeting = self._greetings[connection] = self._greet(connection)
            first = greeting.first()
        except GreetingError as error:
            connection.close(str(error))
            return
        if first is not None:
            connection.send(first)
            connection.flush()

    def received(self, connection: Connection) -> None:
        """See Owner."""
        while (greeting := self._greetings.get(connection)) is not None:
            found = connection.frames(1)
            if not found:
                return
            try:
                answer = greeting.receive(bytes(found[0]))
            except GreetingError as error:
                connection.close(str(error))
                return
            if answer is not None:
                connection.send(answer)
                connection.flush()
            if greeting.done and connection.reason is None:
                self._complete(connection, greeting)
        self._owner.received(connection)

    def _complete(self, connection: Connection, greeting: ClientGreeting | ServerGreeting) -> None:
        del self._greetings[connection]
        connection.greeted, connection.peer_key = True, greeting.peer_key
        if self.listener is not None:
            self.listener.admit(connection)
        self._owner.opened(connection)

    def closed(self, connection: Connection) -> None:
        """See Owner."""
        self._greetings.pop(connection, None)
        if self.listener is not None:
            self.listener.closed(connection)
        if connection.greeted:
            self._owner.closed(connection)
