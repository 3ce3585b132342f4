"""Who may change a cluster through a node's admin port: whoever is on the node's machine, and whom the file names.

The port has no other lock. What only reads is answered to everybody who reaches it, because clients need it.
"""

import socket
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from smrx.wire import admin

#: Requests that change members, leadership, files or the state of a node, or end it.
CHANGES: Final = (
    admin.Snapshot, admin.TransferLeadership, admin.AddMember, admin.RemoveMember, admin.Corrupt, admin.Shutdown,
)  # fmt: skip


def may_change(peer: str, named: Collection[str]) -> bool:
    """Whether a connection from this address may ask for changes; `named`: the addresses in `admin_from`."""
    try:
        address = plain(peer)
    except ValueError:
        return False
    return address.is_loopback or address in map(plain, named) or _is_ours(address)


def plain(text: str) -> IPv4Address | IPv6Address:
    """The address of a text, IPv4 also where it is written as IPv6; raises ValueError."""
    address = ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _is_ours(address: IPv4Address | IPv6Address) -> bool:
    """Whether an interface of this machine has the address: the system lets nobody bind another's."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True
