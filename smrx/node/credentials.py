"""Look up the credentials of the state, as they are after the last command applied.

Owns nothing: the engine owns the credentials. Says which credential has a key, whether it is active, what it may do and
from where it may connect. Called by admission.py.
"""

from smrx.node.principal import Principal


class Credentials:
    """The credentials of one node's state: none, as the rules in force know none."""

    def number_of(self, key: str) -> int | None:
        """Return the number of the credential with a public key (Z85), None if there is none."""
        return None

    def principal(self, number: int) -> Principal | None:
        """Return what a credential may do, None if it is unknown, revoked or has expired."""
        return None

    def may_connect_from(self, number: int, address: str) -> bool:
        """Return whether a credential's networks hold an IP address; without networks they hold every one."""
        return False
