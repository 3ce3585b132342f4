"""Look up the credentials of the state, as they are after the last command applied.

Owns nothing: the engine owns the credentials. Says which credential has a key, whether it is active, what it may do and
from where it may connect. Called by admission.py.
"""

import time

from zmq.utils import z85

from smrx.node.principal import Principal
from smrx.node.replicated_state import ReplicatedState
from smrx.wire.networks import address_bytes


class Credentials:
    """The credentials of one node's state."""

    def __init__(self, state: ReplicatedState) -> None:
        self._state = state

    def number_of(self, key: str) -> int | None:
        """Return the number of the credential with a public key (Z85), None if there is none."""
        found = self._state.engine.inspect.credential_of_key(z85.decode(key))
        return None if found is None else found.number

    def principal(self, number: int) -> Principal | None:
        """Return what a credential may do, None if it is unknown, revoked or has expired.

        It has expired by the time of the exchange or by this node's clock: the former stands still without commands.
        """
        found = self._state.engine.inspect.credential(number)
        if found is None or not found.is_active(max(self._state.engine.time_ns, time.time_ns())):
            return None
        return Principal(found.number, found.permissions, found.scope, found.subject, self._firm_of)

    def may_connect_from(self, number: int, address: str) -> bool:
        """Return whether a credential's networks hold an IP address; without networks they hold every one."""
        found = self._state.engine.inspect.credential(number)
        try:
            return found is not None and found.allows(address_bytes(address))
        except ValueError:
            return False

    def _firm_of(self, account: int) -> int:
        return self._state.engine.inspect.account_firm(account) or 0
