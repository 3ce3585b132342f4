"""Ports of local clusters: free, and disjoint for processes that start clusters at the same time."""

import socket

import pytest

from smrx.local import free_ports


def test_ports_are_distinct_and_free() -> None:
    ports = free_ports(18)
    assert len(set(ports)) == 18
    for port in ports:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))


def test_shares_of_ports_are_disjoint(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for share in ("1/3", "2/3", "3/3"):
        monkeypatch.setenv("SMRX_PORTS_SHARE", share)
        found.append({port % 3 for port in free_ports(50)})
    assert sorted(map(len, found)) == [1, 1, 1]
    assert len(set.union(*found)) == 3
