"""Hold one connection of a client of the native protocol, beside its row in the table. Called by native_server.py."""

from smrx.gateway.person_directory import Person
from smrx.links.connection import Connection


class NativeClient:
    """A connection, and what the compiled code does not need to know of it."""

    __slots__ = ("address", "connection", "end", "name", "packets_left", "person", "slot", "waits_for_answers")

    def __init__(self, slot: int, connection: Connection, person: Person | None = None) -> None:
        self.slot = slot
        self.connection = connection
        self.address = connection.peer_address
        self.person = person
        #: The name it logged in with; "" before.
        self.name = ""
        #: Why the connection is about to be closed; "" while it is served.
        self.end = ""
        #: Whether it goes on only when nothing of it is under way.
        self.waits_for_answers = False
        #: Packets that Python handles in this turn.
        self.packets_left = 0

    def send(self, data: bytes | memoryview) -> None:
        """Send whole packets; what the connection does not take at once is copied and follows."""
        self.connection.send_packed(data)
