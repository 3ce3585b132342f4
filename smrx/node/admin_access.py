"""Decide which addresses may change the cluster through a node's admin port.

Allowed are the addresses of the node's own machine and those in `admin_from` of the cluster file. The port has no other
access control. Requests that only read are answered to every address, because clients need them.
"""

import socket
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from smrx.wire import admin

#: Requests that change members, leadership, rules, files or the state of a node, or stop it, or that read everything.
CHANGING_REQUESTS: Final = (
    admin.Snapshot, admin.TransferLeadership, admin.AddMember, admin.RemoveMember, admin.UpgradeRules,
    admin.TakeState, admin.ReadState, admin.ReadLog, admin.Corrupt, admin.Shutdown,
)  # fmt: skip


def may_change_cluster(peer: str, allowed: Collection[str]) -> bool:
    """Return whether a connection from this address may send changing requests; `allowed`: those in `admin_from`."""
    try:
        address = parse_address(peer)
    except ValueError:
        return False
    return address.is_loopback or address in map(parse_address, allowed) or _is_local(address)


def parse_address(text: str) -> IPv4Address | IPv6Address:
    """Parse an IP address; an IPv4 address mapped to IPv6 becomes IPv4. Raises ValueError."""
    address = ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _is_local(address: IPv4Address | IPv6Address) -> bool:
    """Return whether an interface of this machine has the address: the system refuses to bind any other."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True
