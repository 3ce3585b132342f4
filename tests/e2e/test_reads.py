"""Reads of a real cluster: linearizable while the leader is stopped, and never backwards."""

import os
import signal
import threading
import time
from collections.abc import Callable

import pytest

from smrx.client import Client, Stale, Unavailable
from smrx.client.admin_client import open_admin_client
from smrx.local import LocalCluster
from smrx.wire import admin
from smrx.wire.admin import AdminErrorCode

MakeCluster = Callable[..., LocalCluster]


def set_up(cluster: LocalCluster) -> None:
    with Client(cluster.config) as client:
        client.add_asset("USD", 6)
        client.add_asset("BTC", 8)
        client.add_instrument("BTC-USD", "BTC", "USD", tick="0.01", lot="0.0001")
        client.open_account(1)
        client.deposit(1, "USD", "1000000.00", 1)


def place(cluster: LocalCluster, count: int, price: str) -> int:
    """Place orders one by one; return the sequence of the last answer."""
    with Client(cluster.config, account=1) as trader:
        return [trader.place_limit("BTC-USD", "buy", price, "0.0001").sequence for _ in range(count)][-1]


def test_stopped_leader_and_its_followers_show_no_old_book(make_cluster: MakeCluster) -> None:
    """Orders are placed under the next leader; then the stopped one reads the request that waited for it."""
    cluster = make_cluster()
    set_up(cluster)
    place(cluster, 3, "10.00")
    leader = cluster.wait_leader()
    answers: list[admin.AnyReply | None] = []

    def ask_stopped_leader() -> None:
        with open_admin_client(cluster.config, 30.0) as ask:
            answers.append(ask(leader, admin.Depth(instrument="BTC-USD")))

    with Client(cluster.config, account=1) as reader:
        assert reader.depth("BTC-USD").bids[0].orders == 3
        os.kill(cluster.process(leader).pid, signal.SIGSTOP)
        try:
            waiting = threading.Thread(target=ask_stopped_leader)
            waiting.start()
            # The router asks the stopped leader, then its followers, until one of them leads.
            assert reader.depth("BTC-USD").bids[0].orders == 3
            placed = place(cluster, 4, "11.00")
            book = reader.depth("BTC-USD")
            assert (book.bids[0].orders, book.age_ms) == (4, 0)
            assert book.sequence >= placed
        finally:
            os.kill(cluster.process(leader).pid, signal.SIGCONT)
        waiting.join(30)
        (reply,) = answers
        assert isinstance(reply, admin.AdminError)
        assert reply.code in (AdminErrorCode.NOT_LEADER, AdminErrorCode.LOST_LEADERSHIP)
        assert reader.depth("BTC-USD").bids[0].orders == 4


def test_without_a_majority_only_reads_at_level_any_are_answered(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    set_up(cluster)
    place(cluster, 2, "10.00")
    leader = cluster.wait_leader()
    stopped = [node for node in (1, 2, 3) if node != leader]
    for node in stopped:
        os.kill(cluster.process(node).pid, signal.SIGSTOP)
    try:
        with Client(cluster.config, account=1, timeout=3.0) as client:
            with pytest.raises(Unavailable, match=r"lost its leadership|does not lead"):
                client.depth("BTC-USD")
            book = client.depth("BTC-USD", level="any")
            assert book.bids[0].orders == 2
            assert book.age_ms is not None
            assert book.age_ms > 0
            time.sleep(0.3)
            with pytest.raises(Unavailable, match="ms old, and the read asks for at most 100 ms"):
                client.depth("BTC-USD", level=Stale(max_age_s=0.1))
    finally:
        for node in stopped:
            os.kill(cluster.process(node).pid, signal.SIGCONT)
    cluster.wait_leader()
    with Client(cluster.config, account=1) as client:
        assert client.depth("BTC-USD").age_ms == 0


def test_reads_of_one_client_never_go_backwards(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    set_up(cluster)
    ended = threading.Event()

    def trade() -> None:
        while not ended.is_set():
            place(cluster, 5, "10.00")

    trader = threading.Thread(target=trade)
    trader.start()
    try:
        with Client(cluster.config, account=1) as reader:
            sequences = [
                reader.depth("BTC-USD", level=level).sequence for _ in range(50) for level in ("any", "linearizable")
            ]
    finally:
        ended.set()
        trader.join()
    assert sequences == sorted(sequences)
    assert sequences[0] < sequences[-1]


def test_a_long_listing_is_complete(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    set_up(cluster)
    with Client(cluster.config) as client:
        for account in range(2, 4):
            client.open_account(account)
    place(cluster, 30, "10.00")
    with Client(cluster.config, account=1) as client:
        orders = client.orders()
        assert len({order.order_id for order in orders}) == 30
        assert client.orders(level="any") == orders
        assert client.accounts() == [0, 1, 2, 3]
