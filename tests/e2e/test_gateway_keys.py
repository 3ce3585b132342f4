"""A gateway of a cluster with keys: clients prove theirs, and every order names the person behind it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from smrx.client import Client
from smrx.key_files import KeyPair, generate, write
from smrx.links.greeting import GreetingError
from smrx.local import LocalCluster
from smrx.wire.codes import OutcomeStatus, Reason, Side
from smrx.wire.command_list import CommandList
from smrx.wire.soup_packets import NoticeCode
from tests import commands
from tests.commands import place, session_of
from tests.gateway.local_gateway import LocalGateways
from tests.gateway.soup_client import ClientSide, SoupClient

ANN, BOB = 7, 8
#: The numbers of the credentials.
ANNS, BOBS, GATEWAYS = 17, 18, 30


class Market:
    """A cluster with two customers and a gateway."""

    def __init__(self, directory: Path) -> None:
        self.cluster = LocalCluster(directory, keys=True)
        self.pairs: dict[int, KeyPair] = {number: generate() for number in (ANNS, BOBS, GATEWAYS)}
        key = directory / "gateway.key"
        write(key, self.pairs[GATEWAYS], "a gateway")
        self.gateways = LocalGateways(self.cluster, public_keys=[self.pairs[GATEWAYS].public], secret_key_file=str(key))

    def begin(self) -> None:
        self.cluster.start()
        self.cluster.wait_leader()
        with Client(self.cluster.config) as venue:
            venue.add_asset("BTC", 8)
            venue.add_asset("USD", 2)
            venue.add_instrument("BTC-USD", "BTC", "USD", lot="1")
            venue.add_credential(GATEWAYS, self.pairs[GATEWAYS].public, ["gateway", "trade", "read"])
            for account, number in ((ANN, ANNS), (BOB, BOBS)):
                venue.open_account(account)
                venue.deposit(account, "USD", "1000", number)
                venue.add_credential(number, self.pairs[number].public, ["read", "trade"], account=account)
        self.gateways.start()

    def connect(self, number: int, **changes: object) -> SoupClient:
        side = ClientSide(self.pairs[number], self.pairs[GATEWAYS].public, self.cluster.config.cluster)
        return SoupClient(self.gateways.address(), keys=side._replace(**changes))

    def logged_in(self, number: int) -> SoupClient:
        """Connect once the gateway knows the credential."""
        client: list[SoupClient] = []

        def connected() -> bool:
            try:
                client.append(self.connect(number))
            except (OSError, GreetingError):
                return False
            return True

        self.cluster.wait_for(connected, 60, "a connection to the gateway")
        assert client[0].login() == (str(number), 1)
        return client[0]


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    market = Market(tmp_path_factory.mktemp("gateway-keys"))
    try:
        market.begin()
        with market.gateways:
            yield market
    finally:
        market.cluster.stop()


def test_orders_of_two_customers_name_their_credentials(market: Market) -> None:
    session = session_of(ANNS, 1)
    with market.logged_in(ANNS) as ann:
        opened = ann.open_session(session, ANN)
        assert (opened["status"], opened["session_id"]) == (OutcomeStatus.ACCEPTED, session)
        placed = ann.ask(place((session, 1), ANN, Side.BUY, 1, 100))
        assert (placed["status"], placed["session_id"]) == (OutcomeStatus.ACCEPTED, session)
        # An order with details of its own, which already name the person.
        placed = ann.ask(place((session, 2), ANN, Side.BUY, 1, 99, client_order_id="more than eight", credential=ANNS))
        assert placed["status"] == OutcomeStatus.ACCEPTED
        # The exchange checks the person, not only the gateway.
        refused = ann.ask(place((session, 3), BOB, Side.BUY, 1, 100))
        assert (refused["status"], refused["reason"]) == (OutcomeStatus.REJECTED, Reason.NOT_AUTHORISED)
    with Client(market.cluster.config, account=ANN) as venue:
        assert [order.price for order in venue.orders()] == ["1.00", "0.99"]


def test_the_session_of_another_customer_cannot_be_used(market: Market) -> None:
    # Sessions of all clients are the gateway's at the exchange; the lower halves of these two are the same.
    with market.logged_in(ANNS) as ann, market.logged_in(BOBS) as bob:
        ann.open_session(session_of(ANNS, 9), ANN)
        opened = bob.open_session(session_of(BOBS, 9), BOB)
        assert (opened["status"], opened["reason"]) == (OutcomeStatus.REJECTED, Reason.SESSION_IN_USE)
        bob.send(place((session_of(BOBS, 9), 1), BOB, Side.BUY, 1, 100))
        assert bob.notice().code == NoticeCode.WRONG_SESSION


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (place((session_of(ANNS, 5), 1), ANN, Side.BUY, 1, 100, credential=BOBS), NoticeCode.FORBIDDEN),
        (
            commands.command(commands.CommandKind.MASS_CANCEL, (session_of(ANNS, 5), 1), account=BOB),
            NoticeCode.FORBIDDEN,
        ),
        (commands.withdraw((session_of(ANNS, 5), 1), ANN, 2, 1, 1), NoticeCode.FORBIDDEN),
        (place((session_of(BOBS, 5), 1), BOB, Side.BUY, 1, 100), NoticeCode.WRONG_SESSION),
        (commands.open_session(session_of(BOBS, 5), ANN), NoticeCode.WRONG_SESSION),
        (commands.open_session(session_of(ANNS, 6), BOB), NoticeCode.FORBIDDEN),
    ],
)
def test_what_is_not_the_customers_is_refused(market: Market, command: CommandList, code: NoticeCode) -> None:
    with market.logged_in(ANNS) as ann:
        ann.open_session(session_of(ANNS, 5), ANN)
        ann.send(command)
        notice = ann.notice()
        assert (notice.code, notice.request_id) == (code, int(command.records["request_id"][0]))


def test_an_unknown_key_and_a_key_without_its_secret_reach_nothing(market: Market) -> None:
    unknown = generate()
    forged = KeyPair(market.pairs[ANNS].public, unknown.secret)
    for own in (unknown, forged):
        with pytest.raises((OSError, GreetingError)), market.connect(ANNS, own=own) as client:
            client.login()


def test_a_revoked_key_is_refused_at_once_and_its_connection_ends(market: Market) -> None:
    session = session_of(BOBS, 2)
    with market.logged_in(BOBS) as bob:
        bob.open_session(session, BOB)
        with Client(market.cluster.config) as venue:
            venue.revoke_credential(BOBS)
        bob.send(place((session, 1), BOB, Side.BUY, 1, 100))
        refused: np.void = bob.outcomes(1)[0]
        assert (refused["status"], refused["reason"]) == (OutcomeStatus.REJECTED, Reason.CREDENTIAL_REVOKED)
        assert b"revoked" in bob.rest()[0].payload
