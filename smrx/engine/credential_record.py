"""A credential as a node sees it, which asks at every message who is speaking, and from where.

Changes nothing and finds nothing: inspect.py reads the record.
"""

from typing import Any, Final, NamedTuple

from smrx.wire.codes import Permission, Scope
from smrx.wire.records import ADDRESS_SIZE, KEY_SIZE, NETWORKS

_ADDRESS_BITS: Final = 8 * ADDRESS_SIZE


class Credential(NamedTuple):
    """What a public key may do; subject, networks and prefixes are those of CREDENTIAL_DETAILS."""

    number: int
    key: bytes
    permissions: Permission
    scope: Scope
    subject: int
    expires_ns: int
    revoked: bool
    networks: bytes
    prefixes: bytes

    def is_active(self, time_ns: int) -> bool:
        """Whether it is neither revoked nor expired at a time."""
        return not self.revoked and (self.expires_ns == 0 or time_ns < self.expires_ns)

    def allows(self, address: bytes) -> bool:
        """Whether it may be used from an address of 16 bytes (address_bytes() of wire/networks.py)."""
        wanted, used = int.from_bytes(address, "big"), False
        for at, bits in enumerate(self.prefixes):
            if bits:
                used = True
                network = int.from_bytes(self.networks[ADDRESS_SIZE * at : ADDRESS_SIZE * (at + 1)], "big")
                if (network ^ wanted) >> (_ADDRESS_BITS - bits) == 0:
                    return True
        return not used


def credential_of(row: Any) -> Credential:
    """Return a record of the state as a Credential."""
    data = row.tobytes()
    key, networks = (row.dtype.fields[name][1] for name in ("key_0", "networks_0"))
    return Credential(
        int(row["credential_id"]),
        data[key : key + KEY_SIZE],
        Permission(int(row["permissions"])),
        Scope(int(row["scope"])),
        int(row["subject"]),
        int(row["expires_ns"]),
        bool(row["revoked"]),
        data[networks : networks + NETWORKS * ADDRESS_SIZE],
        int(row["prefixes"]).to_bytes(NETWORKS, "little"),
    )
