"""A gateway with real processes: clients of the native protocol trade through it."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from smrx.cli.exit_codes import Exit
from smrx.client import Client
from smrx.config import Timing
from smrx.local import LocalCluster
from smrx.wire.codes import EventKind, OutcomeStatus, Reason, Side
from smrx.wire.command_list import CommandList
from tests.commands import cancel, place
from tests.gateway.local_gateway import LocalGateways
from tests.gateway.soup_client import RepeatingClient, SoupClient, numbered

#: Short, so that the tests are fast, but many heartbeat intervals even on a loaded machine.
DISCONNECT_MS = 1500
ACCOUNTS = range(1, 5)


def open_market(cluster: LocalCluster) -> None:
    with Client(cluster.config) as venue:
        venue.add_asset("BTC", 0)
        venue.add_asset("USD", 0)
        venue.add_instrument("BTC-USD", "BTC", "USD", tick="1", lot="1", max_price="1000000", max_quantity="1000000")
        for account in ACCOUNTS:
            venue.open_account(account)
            venue.deposit(account, "USD", str(10**15), 2 * account)
            venue.deposit(account, "BTC", str(10**12), 2 * account + 1)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    directory: Path = tmp_path_factory.mktemp("gateway-cluster")
    with LocalCluster(directory, timing=Timing(disconnect_ms=DISCONNECT_MS)) as cluster:
        cluster.wait_leader()
        open_market(cluster)
        yield cluster


@pytest.fixture(scope="module")
def gateways(cluster: LocalCluster) -> Iterator[LocalGateways]:
    with LocalGateways(cluster) as gateways:
        gateways.start()
        yield gateways


def test_a_client_logs_in_places_orders_and_gets_outcomes(gateways: LocalGateways) -> None:
    with SoupClient(gateways.address()) as buyer, SoupClient(gateways.address()) as seller:
        assert buyer.login()[1] == 1
        seller.login()
        assert buyer.open_session(101, 1)["status"] == OutcomeStatus.ACCEPTED
        seller.open_session(102, 2)
        bought = buyer.ask(place((101, 1), 1, Side.BUY, 5, 100))
        assert (bought["status"], bought["event_kind"], bought["request_id"]) == (1, EventKind.NEW, 1)
        sold = seller.ask(place((102, 1), 2, Side.SELL, 2, 100, client_order_id="an id of more than eight"))
        assert (sold["event_kind"], sold["cum_lots"], sold["session_id"]) == (EventKind.FILLED, 2, 102)
        gone = buyer.ask(cancel((101, 2), 1, int(bought["order_id"])))
        assert (gone["event_kind"], gone["cum_lots"]) == (EventKind.CANCELLED, 2)
        rejected = buyer.ask(cancel((101, 3), 1, int(bought["order_id"])))
        assert (rejected["status"], rejected["reason"]) == (OutcomeStatus.REJECTED, Reason.UNKNOWN_ORDER)


def test_many_commands_at_once_are_answered_in_order(gateways: LocalGateways) -> None:
    with SoupClient(gateways.address()) as client:
        client.login()
        client.open_session(103, 3, answers=1 << 14)
        orders = numbered([place((0, 0), 3, Side.BUY, 1, 1 + at % 50) for at in range(10_000)], 103)
        client.send(orders)
        outcomes = client.outcomes(10_000)
        assert outcomes["request_id"].tolist() == list(range(1, 10_001))
        assert (outcomes["status"] == OutcomeStatus.ACCEPTED).all()
        again = numbered([place((0, 0), 3, Side.BUY, 1, 1 + at % 50) for at in range(10_000)], 103)
        client.send(again)
        repeated = client.outcomes(10_000)
        assert (repeated["order_id"] == outcomes["order_id"]).all()


def buys(account: int, session: int, count: int) -> CommandList:
    """Return resting orders, numbered from 1."""
    return numbered([place((0, 0), account, Side.BUY, 1, 1 + at % 50) for at in range(count)], session)


def open_orders(cluster: LocalCluster, account: int) -> list[int]:
    with Client(cluster.config) as venue:
        return [order.order_id for order in venue.orders(all_accounts=True) if order.account == account]


def test_each_order_is_applied_once_while_gateways_and_the_leader_are_killed(cluster: LocalCluster) -> None:
    with LocalGateways(cluster, ("a", "b")) as gateways:
        for name in ("a", "b"):
            gateways.start(name)
        before = len(open_orders(cluster, 4))
        killed: list[int | str] = []

        def progress(answered: int) -> None:
            if answered == 200:
                gateways.kill("a")
                killed.append("a")
            elif answered == 400:
                leader = cluster.wait_leader()
                cluster.kill(leader)
                killed.append(leader)
            elif answered == 600:
                cluster.start_node(int(killed[1]))
                gateways.start("a")
                gateways.kill("b")
                killed.append("b")

        client = RepeatingClient([gateways.address("a"), gateways.address("b")], 104, 4)
        outcomes = client.run(buys(4, 104, 800), window=32, progress=progress)
        assert len(killed) == 3
        assert (outcomes["status"] == OutcomeStatus.ACCEPTED).all()
        orders = set(outcomes["order_id"].tolist())
        found = open_orders(cluster, 4)
        assert len(orders) == 800
        assert len(found) == before + 800
        assert orders <= set(found)
        # The answers are in the state: any gateway gives them again.
        again = RepeatingClient([gateways.address("a")], 104, 4).run(buys(4, 104, 800).part(600, 800), window=32)
        assert (again["order_id"] == outcomes["order_id"][600:]).all()


def test_orders_are_cancelled_when_their_client_has_gone_and_stay_when_it_goes_to_another_gateway(
    cluster: LocalCluster,
) -> None:
    with LocalGateways(cluster, ("a", "b")) as gateways:
        for name in ("a", "b"):
            gateways.start(name)
        before = len(open_orders(cluster, 2))
        with SoupClient(gateways.address("a")) as leaves, SoupClient(gateways.address("a")) as moves:
            for client, session in ((leaves, 105), (moves, 106)):
                client.login()
                client.open_session(session, 2, cancel_on_disconnect=True)
                client.ask(place((session, 1), 2, Side.BUY, 1, 1))
            leaves.close()
            cluster.wait_for(lambda: len(open_orders(cluster, 2)) == before + 1, 60, "one order cancelled")
            gateways.kill("a")
        with SoupClient(gateways.address("b")) as client:
            client.login()
            opened = client.open_session(106, 2, cancel_on_disconnect=True)
            assert (opened["status"], opened["order_id"]) == (OutcomeStatus.DUPLICATE, 1)
            end = time.monotonic() + 2 * DISCONNECT_MS / 1000
            while time.monotonic() < end:
                assert len(open_orders(cluster, 2)) == before + 1
                time.sleep(0.1)


def test_a_gateway_that_was_stopped_goes_on_and_repeats_nothing(cluster: LocalCluster) -> None:
    with LocalGateways(cluster, ("a", "b")) as gateways:
        for name in ("a", "b"):
            gateways.start(name)
        before = len(open_orders(cluster, 1))
        stopped = SoupClient(gateways.address("a"))
        stopped.login()
        stopped.open_session(107, 1)
        gateways.signal("a", signal.SIGSTOP)
        stopped.send(buys(1, 107, 100))  # They wait in the kernel.
        other = RepeatingClient([gateways.address("b")], 107, 1)
        outcomes = other.run(buys(1, 107, 100), window=100)
        time.sleep(2.5)
        gateways.signal("a", signal.SIGCONT)
        late = stopped.outcomes(100)
        assert (late["order_id"] == outcomes["order_id"]).all()
        assert len(open_orders(cluster, 1)) == before + 100
        stopped.close()


def test_two_gateways_with_one_name(gateways: LocalGateways) -> None:
    first = gateways.processes["a"]
    second = gateways.launch("a")
    gateways.processes["a"] = first
    assert second.wait(60) == Exit.RESOURCE
    assert "gateway 'a' cannot listen on" in gateways.log()
    with SoupClient(gateways.address()) as client:
        client.login()
