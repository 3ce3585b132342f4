"""Attack order entry and sessions: unread answers, many sessions, others' sessions, a flow of orders."""

import time
from typing import Final

import numpy as np
import zmq

from cluster.siege import siege_market
from cluster.siege.attack_target import Attacker
from cluster.siege.port_attacks import dealer, try_send, zmq_context
from smrx.client import Client
from smrx.client.client_errors import ClientError
from smrx.wire import frames
from smrx.wire.codes import CommandKind, OrderType, OutcomeStatus, Side, TimeInForce
from smrx.wire.command_list import CommandList
from smrx.wire.frames import FrameKind
from smrx.wire.records import COMMAND, SESSION_COMMAND

_SESSIONS: Final = 100_000
_UNREAD_CONNECTIONS: Final = 4
#: How long a session without its client is kept alive by an attack, in timeouts of a session.
_TIMEOUTS: Final = 3.0


def unread_answers(attacker: Attacker) -> None:
    """Send frames with as many commands as fit to the leader, and read no answer."""
    commands = np.zeros(frames.MAX_COMMANDS, COMMAND)
    commands["kind"], commands["session_id"], commands["request_id"] = CommandKind.MASS_CANCEL, 4242, 1
    data = frames.encode_commands(CommandList(commands), 1)
    with zmq_context() as context:
        sockets = [
            dealer(context, attacker.leader.orders_address, reads=False)
            for _ in range(attacker.scaled(_UNREAD_CONNECTIONS))
        ]
        while attacker.running:
            sent = sum(try_send(to, data) for to in sockets)
            attacker.report.sent += sent
            if not sent:
                time.sleep(0.001)


def sessions(attacker: Attacker) -> None:
    """Open sessions of one account without end."""
    opened = rejected = 0
    with zmq_context() as context:
        to = dealer(context, attacker.leader.orders_address)
        for first in range(1, attacker.scaled(_SESSIONS), 1000):
            if not attacker.running:
                break
            rows = np.zeros(1000, SESSION_COMMAND)
            rows["kind"], rows["account"] = CommandKind.OPEN_SESSION, siege_market.CUSTOMER
            rows["session_id"] = np.arange(first, first + 1000)
            to.send(frames.encode_commands(CommandList(rows.view(COMMAND)), first))
            attacker.report.sent += 1000
            if to.poll(5000):
                frame = frames.decode(to.recv())
                accepted = 0
                if frame.kind is FrameKind.OUTCOMES:
                    accepted = int(np.count_nonzero(frames.records(frame)["status"] == OutcomeStatus.ACCEPTED))
                opened += accepted
                rejected += 1000 - accepted
        attacker.report.note = f"{opened} sessions opened, {rejected} refused"
        attacker.wait(attacker.target.seconds)


def session_theft(attacker: Attacker) -> None:
    """Send the next request of a victim's session, whose ids are known, before the victim does."""
    with zmq_context() as context:
        thief = dealer(context, attacker.leader.orders_address)
        while attacker.running:
            with Client(attacker.config, account=siege_market.VICTIM, timeout=10.0) as victim:
                victim.place_limit(siege_market.SYMBOL, "buy", "1.00", "1")
                known = victim.last_request
                assert known is not None
                stolen = _steal(attacker, thief, *known)
                try:
                    placed = victim.place_limit(siege_market.SYMBOL, "buy", "1.11", "2")
                    if stolen is not None and placed.order_id == stolen:
                        attacker.harmed("a client was told that the order of another sender on its session was its own")
                except ClientError:
                    pass  # The victim is told that its session was used.
                attacker.report.received += 1
            attacker.wait(0.1)
    with Client(attacker.config, account=siege_market.VICTIM) as victim:
        victim.mass_cancel()


def _steal(attacker: Attacker, thief: "zmq.Socket[bytes]", session: int, last_request: int) -> int | None:
    """Place an order on a session of another client; return its id if the exchange accepted it."""
    order = np.zeros(1, COMMAND)
    order["kind"], order["session_id"], order["request_id"] = CommandKind.PLACE, session, last_request + 1
    order["account"], order["instrument"] = siege_market.VICTIM, siege_market.INSTRUMENT
    order["side"], order["order_type"], order["tif"] = Side.BUY, OrderType.LIMIT, TimeInForce.GTC
    order["price_ticks"], order["quantity_lots"] = 7, 77
    try_send(thief, frames.encode_commands(CommandList(order), 7))
    attacker.report.sent += 1
    if not thief.poll(2000):
        return None
    frame = frames.decode(thief.recv())
    if frame.kind is not FrameKind.OUTCOMES:
        return None
    outcome = frames.records(frame)[0]
    if outcome["status"] != OutcomeStatus.ACCEPTED:
        return None
    if attacker.config.curve:
        attacker.harmed("the exchange accepted a request on a session of another credential")
    return int(outcome["order_id"])


def pings_of_others(attacker: Attacker) -> None:
    """Keep a session with cancel-on-disconnect alive after its client has gone, under a valid key of another client."""
    timeout_s = attacker.config.timing.disconnect_ms / 1000
    victim = Client(attacker.config, account=siege_market.VICTIM, cancel_on_disconnect=True, timeout=10.0)
    order = victim.place_limit(siege_market.SYMBOL, "buy", "1.00", "1")
    known = victim.last_request
    assert known is not None
    victim.close(graceful=False)
    ping, refused = frames.encode(FrameKind.PING, aux=known[0]), 0
    ends_at = time.monotonic() + _TIMEOUTS * timeout_s
    with zmq_context() as context:
        sockets = [dealer(context, node.orders_address, keys=attacker.keys) for node in attacker.config.nodes]
        while time.monotonic() < ends_at:
            attacker.report.sent += sum(try_send(to, ping) for to in sockets)
            time.sleep(0.05)
            for to in sockets:
                while to.poll(0):
                    refused += frames.decode(to.recv()).kind is FrameKind.ERROR
    attacker.report.note = f"{attacker.report.sent} pings, {refused} refused"
    if not refused:
        attacker.harmed("no node refused a ping for the session of another client")
    with Client(attacker.config, account=siege_market.VICTIM) as reader:
        if any(open_order.order_id == order.order_id for open_order in reader.orders()):
            attacker.harmed(
                f"pings of another sender kept the orders of a client that is gone for {_TIMEOUTS * timeout_s:.1f} s"
            )


def order_flow(attacker: Attacker) -> None:
    """Send frames of orders that trade with nothing: not an attack, but the events that other attacks need."""
    rows = np.zeros(1000, COMMAND)
    rows["kind"], rows["account"], rows["instrument"] = CommandKind.PLACE, siege_market.CUSTOMER, 1
    rows["side"], rows["order_type"], rows["tif"] = Side.BUY, OrderType.LIMIT, TimeInForce.IOC
    rows["price_ticks"], rows["quantity_lots"] = 1, 1
    with Client(attacker.config, account=siege_market.CUSTOMER, timeout=60.0) as client:
        while attacker.running:
            client.submit(rows)
            attacker.report.sent += len(rows)
            time.sleep(0.005)
