"""Know the credentials of the exchange: whose key a client may prove, for which accounts, and from where.

Owns a copy of the credentials, read from the nodes once a second by a thread. The copy decides who may log in and open
a session. It may be a second old, which is safe: every order names the person behind it, and the exchange checks that
credential again when it applies the order. Called by gateway_process.py and the native server.
"""

import threading
import time
from collections.abc import Callable, Mapping
from ipaddress import ip_address, ip_network
from typing import Final, NamedTuple

from smrx.client.admin_client import Ask
from smrx.config import Config
from smrx.wire import admin
from smrx.wire.admin import CredentialRow
from smrx.wire.codes import Permission, Scope

_REFRESH_SECONDS: Final = 1.0


class Person(NamedTuple):
    """The credential of a client."""

    number: int
    key: str
    permissions: Permission
    scope: Scope
    subject: int
    networks: tuple[str, ...]
    expires_ns: int

    def may_open(self, account: int) -> bool:
        """Return whether it may open a session of an account. Those of firms connect to the nodes themselves."""
        if not self.permissions & (Permission.TRADE | Permission.RISK):
            return False
        return self.scope is Scope.ALL or (self.scope is Scope.ACCOUNT and self.subject == account)

    def may_connect_from(self, address: str) -> bool:
        """Return whether its networks hold an IP address; without networks they hold every one."""
        try:
            found = ip_address(address)
        except ValueError:
            return not self.networks
        mapped = getattr(found, "ipv4_mapped", None) or found
        return not self.networks or any(mapped in ip_network(network) for network in self.networks)


class PersonDirectory:
    """The active credentials by their public keys (Z85)."""

    def __init__(self, read: Callable[[], tuple[CredentialRow, ...] | None]) -> None:
        """`read` returns all credentials, None if no node answers; it is called by the thread of start()."""
        self._read = read
        self._persons: Mapping[str, Person] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="credentials", daemon=True)
        #: Whether the credentials were read at all; counts the times that they changed.
        self.version = 0

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """Read no more."""
        self._stopped.set()

    def find(self, key: str, address: str) -> Person | None:
        """Return the person with a key, None if the key is unknown, not active, or may not connect from the address."""
        person = self._persons.get(key)
        if person is None or (person.expires_ns and person.expires_ns <= time.time_ns()):
            return None
        return person if person.may_connect_from(address) else None

    def refresh(self) -> None:
        """Read the credentials once; what was read before stays if no node answers."""
        rows = self._read()
        if rows is None:
            return
        persons = {row.key: person_of(row) for row in rows if not row.revoked}
        if persons != self._persons or not self.version:
            self._persons = persons
            self.version += 1

    def _run(self) -> None:
        while not self._stopped.is_set():
            self.refresh()
            self._stopped.wait(_REFRESH_SECONDS)


def person_of(row: CredentialRow) -> Person:
    """Return a credential as a person."""
    networks = tuple(row.networks.split())
    scope, permissions = Scope(row.scope), Permission(row.permissions)
    return Person(row.number, row.key, permissions, scope, row.subject, networks, row.expires_ns)


def reader(config: Config, ask: Ask) -> Callable[[], tuple[CredentialRow, ...] | None]:
    """Return a function that reads all credentials from the first node that answers."""

    def read_from(node_id: int) -> tuple[CredentialRow, ...] | None:
        rows: list[CredentialRow] = []
        while True:
            reply = ask(node_id, admin.Credentials(level="any", offset=len(rows)))
            if not isinstance(reply, admin.CredentialsReply):
                return None
            rows += reply.rows
            if not reply.more or not reply.rows:
                return tuple(rows)

    def read() -> tuple[CredentialRow, ...] | None:
        for node in config.nodes:
            rows = read_from(node.id)
            if rows is not None:
                return rows
        return None

    return read
