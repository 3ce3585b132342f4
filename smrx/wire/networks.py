"""The networks from which a credential may connect: as text, and as the bytes of a credential's details.

An address has 128 bits; an IPv4 address is mapped into IPv6 (::ffff:a.b.c.d), so that one comparison serves both. A
network in use has a prefix of at least one bit: /0 would mean everywhere, which is said by no network at all. No I/O.
Used by clients that build credentials and by all who show them; credential_record.py says what they allow.
"""

import ipaddress
from collections.abc import Iterable
from typing import Final

from smrx.wire.records import ADDRESS_SIZE, NETWORKS

_MAPPED: Final = b"\0" * 10 + b"\xff" * 2
_MAPPED_BITS: Final = 8 * len(_MAPPED)


def pack_networks(networks: Iterable[str]) -> tuple[bytes, bytes]:
    """Return the fields `networks` and `prefixes` for networks such as 10.1.0.0/16, 2001:db8::/32 or 10.1.2.3.

    Raises ValueError.
    """
    places, prefixes = b"", b""
    for text in networks:
        try:
            network = ipaddress.ip_network(text)
        except ValueError as error:
            raise ValueError(f"network: expected an address or a network, found {text!r} ({error})") from None
        bits = network.prefixlen + (_MAPPED_BITS if network.version == 4 else 0)
        if bits == 0:
            raise ValueError(f"network: {text} is every address; give no networks for that")
        places += address_bytes(str(network.network_address))
        prefixes += bytes((bits,))
    if len(prefixes) > NETWORKS:
        raise ValueError(f"networks: expected at most {NETWORKS}, found {len(prefixes)}")
    return places.ljust(NETWORKS * ADDRESS_SIZE, b"\0"), prefixes.ljust(NETWORKS, b"\0")


def unpack_networks(places: bytes, prefixes: bytes) -> tuple[str, ...]:
    """Return the networks as text; places that are not in use are left out."""
    found = []
    for at, bits in enumerate(bytes(prefixes)):
        if bits:
            address = bytes(places)[ADDRESS_SIZE * at : ADDRESS_SIZE * (at + 1)]
            if address.startswith(_MAPPED) and bits >= _MAPPED_BITS:
                found.append(f"{ipaddress.IPv4Address(address[len(_MAPPED) :])}/{bits - _MAPPED_BITS}")
            else:
                found.append(f"{ipaddress.IPv6Address(address)}/{bits}")
    return tuple(found)


def address_bytes(address: str) -> bytes:
    """Return the 16 bytes of an address; raises ValueError."""
    parsed = ipaddress.ip_address(address)
    return _MAPPED + parsed.packed if parsed.version == 4 else parsed.packed
