"""Build commands about credentials byte by byte, also invalid ones, from the description of the record alone.

`commands.py` builds valid ones through the layouts of the protocol.
"""

import struct
from ipaddress import ip_network
from typing import Any

import numpy as np

from smrx.wire.codes import CommandKind
from smrx.wire.command_list import CommandList
from smrx.wire.records import COMMAND, DETAILS, DETAILS_SIZE
from tests.commands import Commands, Sender

#: An IPv6 address of 16 bytes, or an IPv4 one in its mapped form, and the length of its prefix; see `network`.
Network = tuple[bytes, int]


def network(text: str) -> Network:
    """Return a network as credentials have it."""
    found = ip_network(text)
    packed = found.network_address.packed
    return (packed, found.prefixlen) if found.version == 6 else (bytes(10) + b"\xff\xff" + packed, found.prefixlen + 96)


def credential_key(number: int) -> bytes:
    """Return a key for the credential with a number, which no other number has."""
    return number.to_bytes(4, "little") + bytes([1]) * 28


def credential_details(
    key: bytes = b"",
    permissions: int = 0,
    scope: int = 0,
    subject: int = 0,
    expires_ns: int = 0,
    networks: tuple[Network, ...] = (),
) -> bytes:
    """Return the details of an ADD_CREDENTIAL or SET_CREDENTIAL."""
    four = [*networks, *([(bytes(16), 0)] * (4 - len(networks)))]
    addresses, prefixes = b"".join(address for address, _ in four), bytes(prefix for _, prefix in four)
    terms = struct.pack("<IqIB", permissions, expires_ns, subject, scope)
    return (key.ljust(32, b"\0") + addresses + prefixes + terms).ljust(DETAILS_SIZE, b"\0")


def add_credential(sender: Sender, number: int, **terms: Any) -> Commands:
    """Return an ADD_CREDENTIAL with the terms of `credential_details`; without a key it gets one of its own."""
    terms = {"key": credential_key(number), **terms}
    return _about(CommandKind.ADD_CREDENTIAL, sender, number, credential_details(**terms))


def set_credential(sender: Sender, number: int, **terms: Any) -> Commands:
    return _about(CommandKind.SET_CREDENTIAL, sender, number, credential_details(**terms))


def revoke_credential(sender: Sender, number: int) -> Commands:
    return _about(CommandKind.REVOKE_CREDENTIAL, sender, number, b"")


def _about(kind: CommandKind, sender: Sender, number: int, details: bytes) -> Commands:
    """Return a command about a credential, whose number stands at byte 28."""
    records = np.zeros(1, COMMAND)
    records["kind"], records["instrument"] = kind, number
    records["session_id"], records["request_id"] = sender
    records["details"] = 1 if details else 0
    return CommandList(records, np.frombuffer(details, DETAILS).copy())
