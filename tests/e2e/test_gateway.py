"""A gateway with real processes: clients of the native protocol trade through it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from smrx.client import Client
from smrx.config import Timing
from smrx.local import LocalCluster
from smrx.wire.codes import EventKind, OutcomeStatus, Reason, Side
from tests.commands import cancel, place
from tests.gateway.local_gateway import LocalGateways
from tests.gateway.soup_client import SoupClient, numbered

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
