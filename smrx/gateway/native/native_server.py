"""Serve clients of the native protocol: log them in, collect their commands into blocks, hand out the answers.

Owns the clients and the block that is being filled. What a client in order sends is handled by compiled code for all
clients at once (packet_splitter.py); this module handles logins, sessions, refusals and the pace of each client:

- A client has at most `commands_under_way` commands without an answer. Beyond that, and while the block is full, its
  connection is not read; the rest waits in the network, and with the client.
- If more has arrived than fits a block, each client gets the same share of it, and what one does not need goes to the
  others.
- A connection opens one session at a time with OPEN_SESSION and sends commands of that session only.
- What cannot be forwarded is answered with a notice; a client that breaks the protocol is told why and cut off.

Never applies a command and never answers for the exchange. Called by gateway_process.py, and by the connections.
"""

import logging
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from smrx.config import GatewayConfig, Limits
from smrx.gateway.native import packet_splitter
from smrx.gateway.native.client_table import (
    ACCOUNT,
    ALLOWANCE,
    CONNECTED,
    KEPT_ALIVE,
    LOGGED_IN,
    PERSON,
    SESSION,
    STATE,
    TOKENS,
    UNDER_WAY,
    ClientTable,
)
from smrx.gateway.native.command_block import AnyRoute, Block, LoneRoute, Route, Submit
from smrx.gateway.native.native_client import NativeClient
from smrx.gateway.native.packet_splitter import FULL, LIMIT, PACKET, SHARE, START, STOP
from smrx.gateway.person_directory import Person
from smrx.gateway.upstream import Answer, Refusal
from smrx.links.connection import Connection
from smrx.links.listener import TOO_MANY_CONNECTIONS, Listener
from smrx.wire import soup_packets
from smrx.wire.codes import COMMAND_TRAITS, CommandKind, CommandTraits, OutcomeStatus, SessionFlags
from smrx.wire.frames import MAX_COMMANDS, ErrorCode
from smrx.wire.records import (
    COMMAND_SIZE,
    CREDENTIAL_SHIFT,
    DEFAULT_ANSWERS,
    OUTCOME_SIZE,
    SESSION_COMMAND,
)
from smrx.wire.soup_packets import HEADER_SIZE, Notice, NoticeCode, PacketError, PacketType, RejectReason

log = logging.getLogger(__name__)

#: Why a client is cut off.
MADE_ROOM: Final = "no login yet, and another connection needs the room"
NO_PERSON: Final = "the credential of this connection is revoked, has expired, or may not connect from this address"

#: Silence after which the server sends a heartbeat, and after which it takes a client for gone: SoupBinTCP 3.00.
HEARTBEAT_S: Final = 1.0
#: How often heartbeats, silence and rates are looked at.
TICK_S: Final = 0.1
#: A connection that was refused is closed after this time, so that the client can read why.
_CLOSING_S: Final = 1.0
#: Bytes that are cut in one call: what a few hundred clients may send at once.
_ARENA_BYTES: Final = 1 << 20
#: Packets of one client that Python handles in a turn; the others of the client wait for the next.
_PACKETS_A_TURN: Final = 8
#: Bytes that wait for one client; beyond them it is not read. One that reads nothing for _UNREAD_MS is cut off.
_BEHIND_BYTES: Final = 128 << 10
_NO_ROOM: Final = soup_packets.encode(
    PacketType.DEBUG, soup_packets.sentence("this gateway has its most connections; try again later, or another one")
) + soup_packets.encode(PacketType.END_OF_SESSION)
_COMMAND_HEADER: Final = soup_packets.encode(PacketType.UNSEQUENCED, bytes(COMMAND_SIZE))[:HEADER_SIZE]
_OUTCOME_HEADER: Final = soup_packets.encode(PacketType.SEQUENCED, bytes(OUTCOME_SIZE))[:HEADER_SIZE]
#: Fields of a command.
_DETAILS_NUMBER: Final = slice(6, 8)
_SESSION: Final = slice(8, 16)
_ONE: Final = np.uint64(1)
_OPENED: Final = (OutcomeStatus.ACCEPTED, OutcomeStatus.DUPLICATE)
_OPEN_SESSION: Final = bytes((CommandKind.OPEN_SESSION,))
_PACKET_BYTES: Final = COMMAND_SIZE + HEADER_SIZE
_LOW: Final = (1 << CREDENTIAL_SHIFT) - 1
#: What a client with a credential may send; its orders name it as the person behind them.
_OF_PERSONS: Final = (
    CommandKind.PLACE,
    CommandKind.CANCEL,
    CommandKind.REPLACE,
    CommandKind.MASS_CANCEL,
    CommandKind.CLOSE_SESSION,
)


class NativeServer:
    """The clients of one gateway; an Owner of their connections."""

    def __init__(
        self,
        settings: GatewayConfig,
        submit: Submit,
        limits: Limits,
        *,
        person_of: Callable[[Connection], Person | None] | None = None,
    ) -> None:
        """`limits`: of the nodes. `person_of`: the person of a connection, on a cluster with keys."""
        rate = settings.commands_per_second
        if person_of is not None:
            # What is above a rate of the nodes they would refuse, with everything else in its frame.
            most = min(limits.session_commands_per_second, limits.account_commands_per_second)
            rate = most if rate is None else min(rate, most)
        self.table = ClientTable(settings.connections, settings.commands_under_way, rate)
        #: Whose connections these are, if no greeting comes first.
        self.listener: Listener | None = None
        #: The number of the gateway's credential; commands wait until it is known.
        self.credential: int | None = None
        #: Commands that were forwarded, refused here, and answered since the start.
        self.forwarded = self.refused = self.answered = 0
        self._settings = settings
        self._submit = submit
        self._session_answers = limits.session_answers
        self._person_of = person_of
        self._has_persons = person_of is not None
        self._clients: list[NativeClient | None] = [None] * settings.connections
        self._ready: dict[NativeClient, None] = {}
        #: Clients that are not read: because the block is full, and because of their own limits.
        self._blocked: dict[NativeClient, None] = {}
        self._held: dict[NativeClient, None] = {}
        self._ending: dict[NativeClient, float] = {}
        #: Connections for which there is no room, until they have had time to read that.
        self._refused: dict[Connection, float] = {}
        #: Connections that were ended for lack of room since the start.
        self.without_room = 0
        self._block = Block()
        self._arena: NDArray[np.uint8] = np.zeros(_ARENA_BYTES, np.uint8)
        self._packets: NDArray[np.uint8] = np.zeros((MAX_COMMANDS, _PACKET_BYTES), np.uint8)
        self._touched: NDArray[np.int64] = np.zeros((MAX_COMMANDS, 3), np.int64)
        self._allowed: NDArray[np.uint8] = np.zeros(256, np.uint8)
        packet_splitter.warm_up(self._block, self.table)
        self._now = 0.0
        self._next_tick = 0.0
        leaders = [kind for kind, traits in COMMAND_TRAITS.items() if CommandTraits.LEADER in traits]
        if self._has_persons:
            self._allowed[list(_OF_PERSONS)] = 1
        else:
            self._allowed[:] = 1
            self._allowed[[*leaders, CommandKind.OPEN_SESSION]] = 0

    # What connections call.

    def opened(self, connection: Connection) -> None:
        """Take a connection; it has to log in."""
        slot = self.table.take(self._now)
        if slot is None:
            slot = self._freed_slot()
        if slot is None:
            self.without_room += 1
            self._refused[connection] = self._now + _CLOSING_S
            connection.send_packed(_NO_ROOM)
            connection.pause(reading=False)
            return
        person = None if self._person_of is None else self._person_of(connection)
        if person is None and self._has_persons:
            connection.close(NO_PERSON)
            self.table.close(slot)
            return
        client = NativeClient(slot, connection, person)
        connection.context = client
        self._clients[slot] = client
        if self.listener is not None:
            # The table bounds the time of a login.
            self.listener.admit(connection)

    def _freed_slot(self) -> int | None:
        """End the oldest connection that is not logged in, and return its slot; None if there is none."""
        waiting = self.table.slots(CONNECTED)
        client = self._clients[waiting[np.argmin(self.table.opened[waiting])]] if len(waiting) else None
        if client is None:
            return None
        self.without_room += 1
        client.connection.close(MADE_ROOM)
        return self.table.take(self._now)

    def received(self, connection: Connection) -> None:
        """Bytes of a client have arrived; read() handles them."""
        client = connection.context
        if client is not None:
            self._ready[client] = None

    def closed(self, connection: Connection) -> None:
        """Forget a client; answers that are under way to it are dropped."""
        client = connection.context
        if self.listener is not None:
            self.listener.closed(connection)
        if client is None:
            self._refused.pop(connection, None)
            return
        connection.context = None
        if client.name:
            log.info("client %s at %s: %s", client.name, client.address, connection.reason)
        for group in (self._ready, self._blocked, self._held, self._ending):
            group.pop(client, None)
        self._clients[client.slot] = None
        self.table.close(client.slot)

    # What the process calls in each turn.

    def set_time(self, now: float) -> None:
        """Set the time of this turn, in seconds on a steady clock; before any other call."""
        if self._now and now - self._now > HEARTBEAT_S:
            # The process was stopped: what clients sent in the meantime is not read yet.
            self.table.heard += now - self._now
        self._now = now

    def read(self, *, may_submit: bool) -> None:
        """Collect the commands of all clients from which bytes have arrived.

        `may_submit`: what is submitted now leaves at once, so that a lone order need not go into the block.
        """
        if not self._ready or self.credential is None:
            return
        if may_submit and len(self._ready) == 1 and self._forward_lone():
            return
        self.table.heard[[client.slot for client in self._ready]] = self._now
        for client in self._ready:
            client.packets_left = _PACKETS_A_TURN
        again: dict[NativeClient, None] = {}
        while self._ready:
            clients = self._fill_arena()
            self._split(clients, again)
        self._ready = again

    @property
    def has_more_to_read(self) -> bool:
        """Whether read() has something to do although nothing new has arrived."""
        return bool(self._ready) and self.credential is not None

    @property
    def has_block(self) -> bool:
        """Whether commands wait to be submitted."""
        return bool(self._block.counts[0])

    def _forward_lone(self) -> bool:
        """Submit what the only client with bytes has sent, if that is one plain command; return whether it was."""
        client = next(iter(self._ready))
        held = client.connection.received_bytes()
        if len(held) != _PACKET_BYTES or held[:HEADER_SIZE] != _COMMAND_HEADER or self._has_persons or self.has_block:
            return False
        body = bytes(held[HEADER_SIZE:])
        row = self.table.rows[client.slot].tolist()
        if (
            row[STATE] != LOGGED_IN
            or row[UNDER_WAY] >= row[ALLOWANCE]
            or not row[TOKENS]
            or body[_DETAILS_NUMBER] != b"\0\0"
            or int.from_bytes(body[_SESSION], "little") != row[SESSION]
            or not self._allowed[body[0]]
        ):
            return False
        self._ready.clear()
        client.connection.consume(_PACKET_BYTES)
        self.table.heard[client.slot] = self._now
        self.table.rows[client.slot, UNDER_WAY] = row[UNDER_WAY] + 1
        self.table.rows[client.slot, TOKENS] = row[TOKENS] - 1
        self.forwarded += 1
        self._submit(LoneRoute(client.slot, body), body, 1)
        return True

    def submit_block(self) -> None:
        """Submit the collected commands, and go on with clients that waited for room."""
        block = self._block
        commands, details = block.counts.tolist()
        if not commands:
            return
        words = block.words[:commands].copy()
        body = words.tobytes()
        if details:
            body += block.details[:details].tobytes()
        block.counts[:] = 0
        self.forwarded += commands
        self._submit(Route(block.routes[:commands].copy(), words), body, commands, details)
        for client in self._blocked:
            self._resume(client)
        self._blocked.clear()

    def answer(self, answer: Answer) -> None:
        """Send the outcomes of a block to its clients."""
        route: AnyRoute = answer.route
        if isinstance(route, LoneRoute):
            self.table.rows[route.slot, UNDER_WAY] -= _ONE
            self.table.sent[route.slot] = self._now
            self.answered += 1
            self._deliver(route.slot, _OUTCOME_HEADER + answer.outcomes)
            return
        count = len(route.slots)
        outcomes = np.frombuffer(answer.outcomes, np.uint8).reshape(count, OUTCOME_SIZE)
        touched = packet_splitter.join(
            outcomes, route.slots, self.table.rows, self._has_persons, self._packets, self._touched
        )
        self.answered += count
        if route.opening is not None and outcomes[0, 0] in _OPENED:
            for column, value in route.opening.items():
                self.table.rows[route.slots[0], column] = value
        data = self._packets[:count].data.cast("B")
        for slot, first, last in self._touched[:touched].tolist():
            self._deliver(slot, data[first * _PACKET_BYTES : last * _PACKET_BYTES])
        self.table.sent[self._touched[:touched, 0]] = self._now

    def _deliver(self, slot: int, packets: bytes | memoryview) -> None:
        """Send the answers of a client, which may go on if it waited for them."""
        client = self._clients[slot]
        if client is None:
            self.table.release(slot)
            return
        client.send(packets)
        if client.connection.queued_bytes > _BEHIND_BYTES:
            self._hold(client)
        elif client in self._held:
            self._continue(client)

    def refuse(self, refusal: Refusal) -> None:
        """Tell the clients of a block that the leader refused it."""
        code = NoticeCode.LIMITED if refusal.code == ErrorCode.LIMITED else NoticeCode.UNAVAILABLE
        for slot, session, request in refusal.route.commands():
            self.table.rows[slot, UNDER_WAY] -= _ONE
            client = self._clients[slot]
            if client is None:
                self.table.release(slot)
                continue
            self._notify(client, code, session, request, refusal.message)
            if client in self._held:
                self._continue(client)

    def tick(self) -> None:
        """Send heartbeats, end connections that are silent or were refused, and let clients with a rate go on."""
        if self._now < self._next_tick:
            return
        self._next_tick = self._now + TICK_S
        table = self.table
        table.refill(self._now)
        for client in tuple(self._held):
            self._continue(client)
        logged_in = table.slots(LOGGED_IN)
        for slot in logged_in[self._now - table.sent[logged_in] >= HEARTBEAT_S].tolist():
            self._send(self._clients[slot], soup_packets.encode(PacketType.SERVER_HEARTBEAT))
        silent_s = self._settings.silence_ms / 1000
        for slot in logged_in[self._now - table.heard[logged_in] >= silent_s].tolist():
            client = self._clients[slot]
            if client is not None and client not in self._held and client not in self._blocked:
                self._end(client, f"nothing was received for {silent_s:g} s; send heartbeats")
        waiting = table.slots(CONNECTED)
        login_s = self._settings.login_ms / 1000
        for slot in waiting[self._now - table.opened[waiting] >= login_s].tolist():
            client = self._clients[slot]
            if client is not None and not client.end:
                self._end(client, f"no login request within {login_s:g} s")
        for client, until in tuple(self._ending.items()):
            if self._now >= until:
                client.connection.close(client.end)
        for connection, until in tuple(self._refused.items()):
            if self._now >= until:
                connection.close(TOO_MANY_CONNECTIONS)

    @property
    def next_deadline(self) -> float:
        """When tick() has something to do."""
        return self._next_tick

    def check_persons(self) -> None:
        """End the connections of clients whose credentials are no longer active."""
        for client in self._clients:
            if client is not None and client.person is not None and not client.end and self._person_of is not None:
                client.person = self._person_of(client.connection) or client.person
                if self._person_of(client.connection) is None:
                    self._end(client, NO_PERSON)

    # Reading.

    def _fill_arena(self) -> list[tuple[NativeClient, int, int]]:
        """Copy what clients have sent into the arena; return them with the places of their bytes."""
        found: list[tuple[NativeClient, int, int]] = []
        arena, at = self._arena, 0
        while self._ready:
            client = next(iter(self._ready))
            held = client.connection.received_bytes()
            size = min(len(held), _ARENA_BYTES)
            if at + size > _ARENA_BYTES:
                break
            del self._ready[client]
            arena[at : at + size] = np.frombuffer(held, np.uint8, size)
            found.append((client, at, at + size))
            at += size
        return found

    def _split(self, clients: list[tuple[NativeClient, int, int]], again: dict[NativeClient, None]) -> None:
        """Cut the bytes in the arena; what is left of a client's goes to `again` or waits for an event."""
        spans = np.array([(client.slot, first, last, 0) for client, first, last in clients], np.int64)
        block = self._block
        room = MAX_COMMANDS - int(block.counts[0])
        share = max(1, room // len(clients))
        upper = np.uint64(self.credential or 0) if self._has_persons else np.uint64(0)
        packet_splitter.split(
            self._arena, spans, share, self.table.rows, self._allowed, upper, block.commands, block.words,
            block.details, block.detail_words, block.routes, block.counts,
        )  # fmt: skip
        for (client, first, _), row in zip(clients, spans.tolist(), strict=True):
            if row[START] > first:
                client.connection.consume(row[START] - first)
            stop = row[STOP]
            if stop == PACKET:
                self._handle_packets(client, again)
            elif stop == SHARE:
                self._ready[client] = None
            elif stop == FULL:
                client.connection.pause(reading=False)
                self._blocked[client] = None
            elif stop == LIMIT:
                self._hold(client)

    def _hold(self, client: NativeClient) -> None:
        """Read no more from a client until _continue() finds that it may go on."""
        if client not in self._held:
            self._held[client] = None
            self._ready.pop(client, None)
            client.connection.pause(reading=False)

    def _resume(self, client: NativeClient) -> None:
        client.connection.pause(reading=True)
        self._ready[client] = None

    def _continue(self, client: NativeClient) -> None:
        """Let a client go on that has fewer commands under way, has read its answers, or may send by its rate."""
        under_way, allowance, tokens = self.table.rows[client.slot, [UNDER_WAY, ALLOWANCE, TOKENS]].tolist()
        most = 0 if client.waits_for_answers else allowance // 2
        if tokens and under_way <= most and client.connection.queued_bytes <= _BEHIND_BYTES // 2:
            client.waits_for_answers = False
            del self._held[client]
            self._resume(client)

    # Packets that are not commands of an open session.

    def _handle_packets(self, client: NativeClient, again: dict[NativeClient, None]) -> None:
        """Handle the next packet of a client, and put the client back if more may follow."""
        if client.end:
            client.connection.consume(len(client.connection.received_bytes()))
            return
        if not client.packets_left:
            again[client] = None
            return
        held = client.connection.received_bytes()
        size = int.from_bytes(held[:2], "big")
        if not 1 <= size <= soup_packets.MAX_TEXT + 1:
            self._end(client, f"expected a packet of 1 to {soup_packets.MAX_TEXT + 1} bytes, found a length of {size}")
            return
        if len(held) < size + 2:
            return
        kind, payload = held[2], bytes(held[HEADER_SIZE : size + 2])
        if self._has_to_wait(client, kind, payload):
            self._hold(client)
            return
        client.packets_left -= 1
        client.connection.consume(size + 2)
        try:
            self._handle(client, kind, payload)
        except PacketError as error:
            self._end(client, str(error))
        if not client.end and client not in self._held:
            self._ready[client] = None

    def _has_to_wait(self, client: NativeClient, kind: int, payload: bytes) -> bool:
        """Return whether a client has to read what it was sent, or to wait for all answers before OPEN_SESSION."""
        if client.connection.queued_bytes > _BEHIND_BYTES:
            return True
        if kind == PacketType.UNSEQUENCED and payload[:1] == _OPEN_SESSION and self.table.rows[client.slot, UNDER_WAY]:
            client.waits_for_answers = True
        return client.waits_for_answers

    def _handle(self, client: NativeClient, kind: int, payload: bytes) -> None:
        state = int(self.table.rows[client.slot, STATE])
        if kind in (PacketType.DEBUG, PacketType.CLIENT_HEARTBEAT):
            return
        if state != LOGGED_IN:
            if kind != PacketType.LOGIN_REQUEST:
                raise PacketError(f"expected a login request first, found a packet of type {chr(kind)!r}")
            self._log_in(client, soup_packets.decode_login(payload))
        elif kind == PacketType.LOGOUT_REQUEST:
            client.connection.close("logged out")
        elif kind == PacketType.UNSEQUENCED:
            self._command(client, payload)
        elif kind == PacketType.LOGIN_REQUEST:
            raise PacketError("this connection is logged in already")
        else:
            raise PacketError(f"expected a packet of type U, R or O, found {chr(kind)!r}")

    def _log_in(self, client: NativeClient, login: soup_packets.Login) -> None:
        if login.session or login.sequence > 1:
            # Answers are kept by the exchange. A client asks for one by repeating the request.
            self._end(
                client,
                f"no session {login.session!r} from packet {login.sequence} on; log in without a session and repeat "
                "the requests that have no answer",
                soup_packets.encode_rejected(RejectReason.NO_SESSION),
            )
            return
        row = self.table.rows[client.slot]
        if client.person is not None:
            row[PERSON] = client.person.number
        row[STATE] = LOGGED_IN
        client.name = login.username or f"connection {client.slot}"
        self._send(client, soup_packets.encode_accepted(str(int(row[PERSON])), 1))

    def _command(self, client: NativeClient, payload: bytes) -> None:
        """Handle a command that split() did not take: OPEN_SESSION, or one that is refused."""
        command, details = soup_packets.decode_command(payload)
        row = self.table.rows[client.slot]
        kind, session, request = (int(command[name][0]) for name in ("kind", "session_id", "request_id"))
        if int(command["details"][0]) != len(details):
            message = f"expected details {len(details)} in a packet of {len(payload)} bytes, found another number"
            self._notify(client, NoticeCode.MALFORMED, session, request, message)
        elif kind == CommandKind.OPEN_SESSION:
            self._open_session(client, payload)
        elif not self._allowed[kind]:
            name = next((known.name for known in CommandKind if known == kind), f"kind {kind}")
            message = f"{name} is not for clients of this gateway"
            self._notify(client, NoticeCode.FORBIDDEN, session, request, message)
        elif session != int(row[SESSION]):
            opened = f"has opened session {int(row[SESSION])}" if row[SESSION] else "has opened no session"
            message = f"this connection {opened}; send OPEN_SESSION for session {session} first"
            self._notify(client, NoticeCode.WRONG_SESSION, session, request, message)
        else:
            message = "the command names another account or person than its session's"
            self._notify(client, NoticeCode.FORBIDDEN, session, request, message)

    def _open_session(self, client: NativeClient, payload: bytes) -> None:
        """Send OPEN_SESSION as a block of its own: a leader that refuses it refuses nothing else."""
        if len(payload) != COMMAND_SIZE:
            raise PacketError("OPEN_SESSION has no details")
        words = np.frombuffer(bytearray(payload), np.uint64).reshape(1, -1)
        command = words[0].view(SESSION_COMMAND)
        session, account = int(command["session_id"][0]), int(command["account"][0])
        answers = int(command["answers"][0]) or DEFAULT_ANSWERS
        row = self.table.rows[client.slot]
        if answers > self._session_answers:
            message = f"a session may ask to keep {self._session_answers} answers, found {answers}"
            self._notify(client, NoticeCode.LIMITED, session, 0, message)
            return
        if client.person is not None:
            if session >> CREDENTIAL_SHIFT != client.person.number:
                message = f"expected {client.person.number}, the client's credential, in the upper half of session ids"
                self._notify(client, NoticeCode.WRONG_SESSION, session, 0, message)
                return
            if not client.person.may_open(account):
                message = f"credential {client.person.number} does not trade for account {account}"
                self._notify(client, NoticeCode.FORBIDDEN, session, 0, message)
                return
            command["session_id"] = (self.credential or 0) << CREDENTIAL_SHIFT | session & _LOW
        cancels = int(command["flags"][0]) & SessionFlags.CANCEL_ON_DISCONNECT
        opening = {
            SESSION: session,
            ACCOUNT: account,
            KEPT_ALIVE: int(command["session_id"][0]) if cancels else 0,
            # No more unanswered requests than the session keeps answers for: each may have to be sent again.
            ALLOWANCE: min(self._settings.commands_under_way, answers),
        }
        # The session is not the client's before the exchange says so; what follows waits for that.
        row[SESSION] = row[KEPT_ALIVE] = 0
        row[UNDER_WAY] += _ONE
        client.waits_for_answers = True
        self._hold(client)
        self.forwarded += 1
        self._submit(Route(np.array([client.slot], np.int64), words, opening), words.tobytes(), 1, droppable=True)

    # Sending.

    def _send(self, client: NativeClient | None, data: bytes) -> None:
        if client is not None:
            client.send(data)
            self.table.sent[client.slot] = self._now

    def _notify(self, client: NativeClient, code: NoticeCode, session: int, request: int, text: str) -> None:
        self.refused += 1
        if client.person is not None:
            session = client.person.number << CREDENTIAL_SHIFT | session & _LOW
        self._send(client, soup_packets.encode_notice(Notice(code, session, request, text)))

    def _end(self, client: NativeClient, why: str, before: bytes = b"") -> None:
        """Tell a client why its connection ends, and close it a moment later."""
        client.end = why
        self._ending[client] = self._now + _CLOSING_S
        self.table.rows[client.slot, STATE] = CONNECTED
        text = soup_packets.encode(PacketType.DEBUG, soup_packets.sentence(why))
        self._send(client, text + (before or soup_packets.encode(PacketType.END_OF_SESSION)))
