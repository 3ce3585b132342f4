"""Find credentials by number and by key, for a node that asks at every message who is speaking.

Reads the indexes of the state, so an answer costs the same however many credentials there are, and shows what the last
command left. Changes nothing. Called by engine.py.
"""

from typing import Any, Final, NamedTuple

import xxhash

from smrx.engine.state import State
from smrx.wire.codes import Permission, Scope
from smrx.wire.records import ADDRESS_SIZE, KEY_SIZE, NETWORKS

_LOW32: Final = (1 << 32) - 1
_MASK: Final = (1 << 64) - 1
_ADDRESS_BITS: Final = 8 * ADDRESS_SIZE
#: That of hash_index.py.
_GOLDEN: Final = 0x9E3779B97F4A7C15


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


def credential_of_number(state: State, number: int) -> Credential | None:
    """Return the credential with a number."""
    slot = _find(state.credential_index, state.credentials, "credential_id", number)
    return _credential(state.credentials[slot]) if slot else None


def credential_of_key(state: State, key: bytes) -> Credential | None:
    """Return the credential to which a public key belongs, also if it is revoked."""
    slot = _find(state.key_index, state.credentials, "key_form", xxhash.xxh3_64_intdigest(key))
    found = _credential(state.credentials[slot]) if slot else None
    return found if found and found.key == key else None


def firm_of(state: State, account: int) -> int | None:
    """Return the firm of an account, 0 for none; None for an unknown account."""
    slot = _find(state.account_index, state.accounts, "account_id", account)
    return int(state.accounts["firm"][slot]) if slot else None


def _find(cells: Any, rows: Any, field: str, key: int) -> int:
    """Return the slot of a record by its key, 0 without one: hash_index.find, for a key without a second part."""
    product = key * _GOLDEN
    hashed = ((product & _MASK) ^ (product >> 64)) & _LOW32
    mask = len(cells) - 1
    at = hashed & mask
    while cell := int(cells[at]):
        slot = cell & _LOW32
        if cell >> 32 == hashed and int(rows[slot][field]) == key:
            return slot
        at = (at + 1) & mask
    return 0


def _credential(row: Any) -> Credential:
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
