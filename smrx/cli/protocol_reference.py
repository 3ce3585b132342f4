"""Generate docs/protocol.md from the records, codes and frames: `python -m smrx.cli.protocol_reference` prints it.

scripts/docs writes the file; a test checks that it is current, that every field has a note, and that the bytes of every
example decode to the values beside them. The text around the tables is written here; every number in a table comes from
the code.
"""

from collections.abc import Iterable, Mapping
from enum import IntEnum, IntFlag
from typing import Any, Final

import click

from smrx.cli.protocol_examples import EXAMPLES, Layout, example, frame_examples
from smrx.client.reasons import REASON_TEXTS
from smrx.feed import retransmission, subscription
from smrx.links import greeting
from smrx.wire import batches, codes, frames, records
from smrx.wire.codes import CommandKind, EventKind, Reason
from smrx.wire.frames import ErrorBody, ErrorCode, FrameKind, LeaderHint

#: What a field holds, by name, wherever it has this name.
FIELD_NOTES: Final[Mapping[str, str]] = {
    "account": "account number; 0 is the venue's own",
    "amount": "minimal units of the asset",
    "answers": "how many of its last answers the session keeps, 0 asks for the default; of a capacity: of all sessions",
    "asset": "asset number, not 0",
    "available_after": "available balance afterwards, minimal units",
    "band_bp": "how far a limit price may be from the last trade price, hundredths of a percent",
    "base_asset": "asset that is bought and sold",
    "cancelled": "orders that were cancelled",
    "client_order_id": "client order id, see Text",
    "collar_bp": "how far a market order may trade from its reference, hundredths of a percent",
    "collar_reference": "CollarReference",
    "command_kind": "CommandKind of the rejected command",
    "command_sequence": "sequence of the command that caused it",
    "counter_account": "the maker's account",
    "counter_order_id": "the maker's order",
    "credential": "in details and ORDER_TERMS the person behind the order, else the credential that caused it; 0: none",
    "cum_lots": "lots filled so far",
    "decimals": "display decimals, 0 to 18",
    "details": "number of the command's details in the frame, from 1; 0 for none",
    "display_lots": "lots that an iceberg shows; 0 for any other order",
    "event_count": "events that the command caused",
    "event_kind": "EventKind, see below",
    "expires_ns": "engine time from which on the credential has expired, nanoseconds since 1970; 0 for never",
    "expiry_ns": "when a GTD order ends, nanoseconds since 1970",
    "firm": "firm that the account belongs to, 0 for none",
    "first_event": "sequence of the first of them, 0 if there are none",
    "flags": "OrderFlags, for sessions SessionFlags",
    "following": "how many of the next events belong to this one",
    "instrument": "instrument number; 0 in MASS_CANCEL means all",
    "key": "public key of CURVE, not 0",
    "kind": "CommandKind, in events EventKind",
    "last_request_id": "last request id of a session that is opened again",
    "accounts": "most accounts, the venue's included",
    "orders": "most open orders",
    "balances": "most pairs of account and asset that had money or an order",
    "sessions": "most sessions, open and closed ones",
    "instruments": "most instruments",
    "assets": "most assets",
    "credentials": "most credentials",
    "leaves_lots": "lots still open",
    "lot_units": "minimal units of the base asset in a lot",
    "maker_fee": "millionths of the notional; negative is a rebate",
    "match_id": "number of the match",
    "max_notional": "most quote units of an order; 0 for no rule",
    "max_open_notional": "most quote units of all open orders; 0 for no limit",
    "max_open_orders": "most open orders; 0 for no limit",
    "max_order_notional": "most quote units of one order; 0 for no limit",
    "max_order_quantity": "most lots of one order; 0 for no limit",
    "max_price_ticks": "highest price",
    "max_quantity_lots": "largest quantity of an order",
    "min_notional": "fewest quote units of an order; 0 for no rule",
    "min_price_ticks": "lowest price; 0 for no rule",
    "min_quantity_lots": "smallest quantity of an order; 0 for no rule",
    "networks": "four IPv6 networks that it may connect from, IPv4 as ::ffff:a.b.c.d; without any: from everywhere",
    "number": "number of the credential, chosen by the venue, not 0, never used again",
    "order_id": "order number; of a new order the sequence of its command",
    "order_list_id": "reserved, 0",
    "order_type": "OrderType",
    "peg_offset_ticks": "reserved, 0",
    "peg_reference": "reserved, 0",
    "permissions": "Permission",
    "prefixes": "how many of the 128 bits of each network count; 0 for one that is not used",
    "price_ticks": "price; 0 for orders without a limit; in fills and trades the price of this fill",
    "quantity_lots": "quantity, of a REPLACE the new total, of fills and trades theirs; quote units with QUOTE_BUDGET",
    "quote_asset": "asset that is paid with",
    "reason": "Reason",
    "request_id": "the session's last request id + 1; 0 for kinds without a number",
    "rule_flags": "RuleFlags",
    "scale_units": "minimal units of the quote asset that one tick x one lot is worth",
    "scope": "Scope",
    "sequence": "number of the event; in outcomes of the command, 0 for a DUPLICATE and for REQUEST_MISMATCH",
    "session_id": "session of the sender, not 0: the number of its credential, then 32 bits chosen by the client",
    "session_silence_s": "seconds of silence after which a session without open orders of its own ends",
    "side": "Side; of a trade the taker's",
    "status": "InstrumentStatus; in outcomes OutcomeStatus",
    "stop_price_ticks": "last trade price that triggers a stop order",
    "stp": "Stp, self-trade prevention",
    "subject": "account or firm of the credential; 0 with Scope.ALL",
    "supply_cap": "most minimal units that may exist; 0 for the general limit",
    "symbol": "symbol, see Text",
    "taker_fee": "millionths of the notional",
    "tif": "TimeInForce",
    "time_ns": "engine time, nanoseconds since 1970",
    "trailing_offset_ticks": "reserved, 0",
    "transfer_age_s": "seconds for which a transfer id is kept",
    "transfer_id": "number of the transfer, chosen by the sender, not 0",
    "transfers": "most transfer ids that are kept",
    "version": "version of the rules",
}

#: Frame kind: direction, correlation, aux, body.
FRAME_NOTES: Final[Mapping[FrameKind, tuple[str, str, str, str]]] = {
    FrameKind.COMMANDS: (
        "client to node, orders", "chosen by the client, echoed", "0", "`count` COMMAND, then `details` details"
    ),
    FrameKind.PING: (
        "client to node, orders",
        "chosen by the client, echoed",
        "a session to keep alive, or 0",
        "`count` further such sessions u64",
    ),
    FrameKind.OUTCOMES: (
        "node to client, orders", "of the COMMANDS frame", "0", "`count` OUTCOME in the order of the commands"
    ),
    FrameKind.NOT_LEADER: (
        "node to client, orders", "of the COMMANDS frame", "0",
        "LeaderHint; the commands may or may not be applied later: send them again with the same ids",
    ),
    FrameKind.ERROR: (
        "node to client, orders; node to subscriber, events", "of the frame; 0 on the events socket", "0",
        "ErrorBody; nothing of the frame was applied; on the events socket there is no subscription, or not any more",
    ),
    FrameKind.PONG: ("node to client, orders", "of the PING", "0", "LeaderHint"),
    FrameKind.EVENTS: (
        "node to subscriber, events", "sequence of the last command", "state hash after it, 0 for no claim",
        "`count` EVENT",
    ),
    FrameKind.HEARTBEAT: (
        "node to subscriber, events", "next event that it is sent", "with a body: state hash; else: newest event held",
        "empty, or: last command u64, number of balances u64, their digest u64",
    ),
    FrameKind.UNAVAILABLE: ("node to subscriber, events", "oldest event held", "newest event held", "none"),
    FrameKind.ATTESTATION: (
        "node to subscriber, events", "first event", "xxh3 of the records of `count` events",
        "last command u64, state hash u64",
    ),
    FrameKind.UPDATES: (
        "node to subscriber, events", "first event covered", "last event covered",
        "those `count` EVENT of them that concern the accounts",
    ),
    FrameKind.RETRANSMIT: (
        "subscriber to node, events", "first event wanted", "last event wanted, 0 for the newest", "none"
    ),
    FrameKind.ATTEST: ("subscriber to node, events", "first event", "last event", "none"),
    FrameKind.SUBSCRIBE: (
        "subscriber to node, events", "first event wanted, 0 for the next one", "credit in bytes",
        "`count` accounts u32, none for every event",
    ),
    FrameKind.SUBSCRIBE_OWN: (
        "subscriber to node, events", "first event wanted, 0 for the next one", "credit in bytes", "none"
    ),
    FrameKind.CREDIT: ("subscriber to node, events", "0", "further bytes of credit, may be 0", "none"),
}  # fmt: skip

#: The header of a frame: offset, type, field, note.
_FRAME_HEADER: Final = (
    (0, "4 bytes", "magic", "`SMRX`"),
    (4, "u8", "version", f"{frames.VERSION}"),
    (5, "u8", "kind", "FrameKind"),
    (6, "u16", "reserved", "0"),
    (8, "u32", "count", "records of the body"),
    (12, "u32", "details", "details after the commands; 0 in every other kind"),
    (16, "u64", "correlation", "by kind"),
    (24, "u64", "aux", "by kind"),
)


def _type_name(form: Any) -> str:
    if form.kind in "SV":
        return f"{form.itemsize} bytes"
    return f"{form.kind}{8 * form.itemsize}"


def _table(head: str, rows: Iterable[Iterable[object]]) -> str:
    titles = head.split("|")
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def layout_table(layout: Layout, skipped: Iterable[str] = ()) -> str:
    """Return the fields of a record: offset, type, name, note; without those in `skipped`."""
    assert layout.fields is not None
    rows = []
    for name in sorted(layout.names or (), key=lambda field: layout.fields[field][1]):  # type: ignore[index]
        form, offset = layout.fields[name][:2]
        if name not in skipped and not name.startswith("reserved"):
            rows.append((offset, _type_name(form), f"`{name}`", FIELD_NOTES[name]))
    return _table("offset|type|field|meaning", rows)


_HEAD: Final = """# Binary protocol, version {version}

Generated by `scripts/docs` from the code; do not edit. This page is enough to write a client or a subscriber in any
language. Numbers are little-endian integers; text is ASCII, padded with NUL bytes; fields without a name are 0. There
are no floating-point numbers: prices are in ticks, quantities in lots, money in the minimal unit of its asset.

## Sockets

Every node has these sockets; the configuration names their addresses. In ZeroMQ (ZMTP 3.1, NULL security without keys)
a message is one part, one frame.

| socket | client's type | what it carries |
|---|---|---|
| orders over TCP | TCP connection | a greeting; COMMANDS, PING; answers |
| orders through rings | memory of this machine | the same without the greeting; only without keys |
| orders | DEALER | the same without the greeting |
| events | DEALER | SUBSCRIBE(_OWN), CREDIT, RETRANSMIT, ATTEST; EVENTS, UPDATES, HEARTBEAT, UNAVAILABLE, ATTESTATION |

## Order entry over TCP

The default port is the node's `port` + 3; the address of a node is written smrx://HOST:PORT. Every message in either
direction stands behind its length, a u32 that does not count itself, in little-endian order as all numbers. The first
message of each side is a greeting of {hello_bytes} bytes; the client begins, and frames follow.

| offset | type | field | meaning |
|---|---|---|---|
| 0 | 8 bytes | magic | `smrx-hlo` from the client, `smrx-wlc` from the node |
| 8 | u16 | version | {greeting_version} |
| 10 | u8 | purpose | {orders_purpose}: order entry |
| 11 | u8 | keys | 1 on a cluster with keys, else 0 |
| 12 | u64 | cluster | xxh3 (64 bits) of the cluster's name; a client without keys may send 0 for any |
| 20 | 32 bytes | ephemeral key | X25519 public key made for this connection; 0 without keys |
| 52 | 32 bytes | public key | X25519 public key of this side; 0 without keys |

With keys TLS 1.3 comes before all of that. The node's greeting is then followed by its proof, in the same message, and
the client sends its own proof as its second message: docs/security.md says how they are computed. A node closes the
connection after any other greeting, after 3 s without one, and after a length above {max_frame_bytes}. It does not read
from a connection with more than 256 KiB of unread answers, and closes one that reads nothing for 10 s.

## Order entry through rings

A process of the node's user on the same machine may send the same bytes through shared memory. It connects to the Unix
socket `orders.ring` in the data directory of the node and receives one message of 16 bytes with three descriptors:
sealed memory and two eventfds, the node's bell and the client's. The message: 8 bytes `SMRXRING`, u32 version 1, u32
bytes of a ring, a power of two. The memory has two rings, first the one to the node; each is a header of 512 bytes and
its bytes. Words of a header: at 0 the bytes ever written, at 128 the bytes ever read, at 256 whether the reader sleeps,
at 384 whether the writer sleeps. A side that writes or reads and then finds the other asleep sets that word to 0 and
writes 1 to the other's bell; `smrx/rings/ring_kernels.py` says in which order. The socket carries nothing else, and its
end is the end of the rings.

## A client in seven steps

1. Connect to the order entry of any node and send PING. The PONG names the leader and its addresses,
   `order_tcp_address` and `order_address` (ZeroMQ). Connect to the one of your transport. `leader_id` is null during
   an election: ask again after a moment.
2. Choose a `session_id` that is not 0: its upper 32 bits are the number of the connection's credential, which PONG
   says (0 on a node without keys); the lower ones are random. Send OPEN_SESSION with request_id 0. An outcome with
   status ACCEPTED or DUPLICATE opens it; DUPLICATE carries the session's last request id in `order_id`.
3. Number the requests of the session 1, 2, 3 ... in the order in which they are sent. A frame may hold up to
   {max_commands} commands; several frames may be under way, but no more unanswered requests than `answers`.
4. Match outcomes by session_id and request_id. REQUEST_GAP means that an earlier request did not arrive: send again
   from the first unanswered one.
5. After NOT_LEADER, ERROR, a broken connection or silence: find the leader (step 1) and send every unanswered request
   again **with its old request id**. A request that was applied before gets its first answer again if it is among the
   last `answers` of the session; it is never applied twice. With another content it is rejected: REQUEST_MISMATCH.
6. Send PING with the session in `aux` at least every third of `disconnect_ms` if the session asked for
   CANCEL_ON_DISCONNECT.
7. End with CLOSE_SESSION. A closed session can be opened again by its account until it expires; its requests stay done.

## A subscriber in six steps

1. Connect a DEALER to the events socket of a node and send SUBSCRIBE with the first event wanted and a credit of up to
   {max_credit} bytes. The node answers with a HEARTBEAT, or with an ERROR that says why not.
2. The node sends EVENTS in sequence as long as there is credit: each frame with events takes as many bytes as it has.
   Send CREDIT for the bytes of the frames that were consumed, at least every {keep_alive:g} s, with 0 if there are
   none. A node forgets a subscriber after {silence:g} s without a message from it.
3. HEARTBEAT comes every half second and names the next event that the node will send. Events before it that did not
   arrive were lost.
4. UNAVAILABLE says that the node no longer holds the next event of the stream, or the first one of a RETRANSMIT or
   ATTEST. The stream continues after the newest event. What is missing can be asked for at another node: RETRANSMIT
   repeats up to {max_answer} events, out of the same credit, ATTEST returns only their digest.
5. A single node may lie. Events are safe to use once more than half of the members have sent the same events, or their
   digest, and have claimed the same state hash after the last of their commands or after a later one.
6. A SUBSCRIBE with accounts (up to {max_accounts}) gives UPDATES instead of EVENTS: the events that concern these
   accounts, and the range of sequences that the frame covers. Session and request ids are 0, and so is what a TRADE
   says of a side that is not among the accounts. A rejection is left out if its reason is UNKNOWN_ACCOUNT or one before
   it in the order of precedence: anyone may have sent that command. SUBSCRIBE_OWN is for all accounts that the
   credential acts for, those included that its firm opens later. All nodes send the same events for the same accounts.

## Frames

A frame is a header of {header} bytes and a body.

"""

_TEXT_RULES: Final = """## Text

A client order id is 1 to {id_size} printable ASCII characters (space to `~`), unique among the account's open
orders. An id of up to {short} characters stands in `client_order_id` of the COMMAND itself, the first character in
the low byte; a longer one in the details, and then that field of the COMMAND is 0. Events carry its 64-bit form: of
a short id the id itself, of a longer one the xxh3_64 (seed 0) of its {id_size} bytes with the highest bit set. The
text of a longer id follows NEW, or REJECTED, in an event CLIENT_ORDER_ID. A symbol has 1 to {symbol} characters (an
asset's 1 to {asset}) of `A-Z 0-9 - . / _`, begins with a letter or a digit, and holds a letter.

"""


def _enum_table(kind: type[IntEnum] | type[IntFlag]) -> str:
    members = ", ".join(f"{member.name} = {int(member)}" for member in kind)
    return f"| {kind.__name__} | {members} |"


def protocol() -> str:
    """Return the text of docs/protocol.md."""
    parts = [
        _HEAD.format(
            version=frames.VERSION,
            max_commands=frames.MAX_COMMANDS,
            max_frame_bytes=frames.MAX_FRAME_BYTES,
            hello_bytes=greeting.HELLO_BYTES,
            greeting_version=greeting.VERSION,
            orders_purpose=greeting.ORDERS,
            header=frames.HEADER_SIZE,
            max_credit=subscription.MAX_CREDIT,
            keep_alive=subscription.KEEP_ALIVE_S,
            silence=subscription.SILENCE_S,
            max_answer=retransmission.MAX_ANSWER_EVENTS,
            max_accounts=frames.MAX_ACCOUNTS,
        ),
        _table("offset|type|field|meaning", _FRAME_HEADER),
        f"\nA COMMANDS frame has at most {frames.MAX_COMMANDS} commands and as many details, an EVENTS frame at most "
        f"{frames.MAX_EVENTS} events; no frame has more than {frames.MAX_FRAME_BYTES} bytes.\n\n",
        _table(
            "kind|number|direction, socket|correlation|aux|body",
            ((kind.name, int(kind), *FRAME_NOTES[kind]) for kind in FrameKind),
        ),
        "\nLeaderHint and ErrorBody are msgpack maps:\n\n",
        _table("body|field|type", _body_rows()),
        "\n",
        _table("ErrorCode|number", ((code.name, int(code)) for code in ErrorCode)),
        "\n",
        _TEXT_RULES.format(
            id_size=records.CLIENT_ORDER_ID_SIZE,
            short=records.SHORT_ID_SIZE,
            symbol=records.INSTRUMENT_SYMBOL_SIZE,
            asset=records.ASSET_SYMBOL_SIZE,
        ),
        _commands(),
        _outcomes(),
        _events(),
        _log_entries(),
        _enums(),
        _examples(),
    ]
    return "".join(parts)


def _body_rows() -> Iterable[tuple[str, str, str]]:
    for body in (LeaderHint, ErrorBody):
        for name, kind in body.__annotations__.items():
            yield body.__name__, f"`{name}`", str(getattr(kind, "__name__", kind)).replace("|", "or")


def _named(layout: Layout) -> str:
    return next(name for name in dir(records) if name.isupper() and getattr(records, name) is layout)


def _commands() -> str:
    parts = [
        "## Commands\n\nA command has "
        f"{records.COMMAND_SIZE} bytes. Fields that its kind does not list, and bytes without a name, must be 0.\n\n",
        _table(
            "kind|number|layout|fields beside kind, session_id, request_id|details",
            (
                (
                    kind.name,
                    int(kind),
                    _named(records.COMMAND_LAYOUTS[kind]),
                    ", ".join(records.COMMAND_FIELDS[kind]) or "none",
                    ", ".join(records.DETAILS_FIELDS[kind]) if kind in records.DETAILS_FIELDS else "none",
                )
                for kind in CommandKind
            ),
        ),
    ]
    for layout in dict.fromkeys(records.COMMAND_LAYOUTS.values()):
        parts += [f"\n### {_named(layout)}\n\n", layout_table(layout)]
    parts.append(f"\n## Details\n\nDetails have {records.DETAILS_SIZE} bytes; their layout follows from the command.\n")
    for layout in dict.fromkeys(records.DETAILS_LAYOUTS.values()):
        parts += [f"\n### {_named(layout)}\n\n", layout_table(layout)]
    return "".join(parts)


def _outcomes() -> str:
    return (
        f"\n## Outcomes\n\nEvery command gets one outcome of {records.OUTCOME_SIZE} bytes. `event_kind`: for PLACE the "
        "order's state afterwards (NEW, PARTIALLY_FILLED, FILLED, EXPIRED or REJECTED), for others the kind of the "
        "command's own event. `order_id`: the order created or changed, the transfer id, or for a DUPLICATE the "
        "session's last request id. `cum_lots` and `leaves_lots`: of the order after the command; for MASS_CANCEL, "
        "SET_STATUS, CLOSE_SESSION and DISCONNECT cum_lots is the number of orders cancelled, and leaves_lots of those "
        "that are left because one command cancels so many at most; for DEPOSIT and "
        "WITHDRAW cum_lots is the available balance afterwards.\n\n" + layout_table(records.OUTCOME)
    )


def _events() -> str:
    header = [name for name in records.EVENT.names or () if records.EVENT.fields[name][1] < 64]  # type: ignore[index]
    parts = [
        f"\n## Events\n\nAn event has {records.EVENT_SIZE} bytes. Events are numbered without gaps; a subscriber that "
        "misses one asks for it with RETRANSMIT. The first 64 bytes are the same for every kind:\n\n",
        layout_table(records.EVENT, [name for name in records.EVENT.names or () if name not in header]),
        "\nThe other 64 depend on the kind. Fields that a kind does not list are 0.\n\n",
        _table(
            "kind|number|layout|fields beside sequence, command_sequence, time_ns, kind, session_id, request_id",
            (
                (
                    kind.name,
                    int(kind),
                    _named(records.EVENT_LAYOUTS[kind]),
                    ", ".join(records.EVENT_FIELDS[kind]) or "none",
                )
                for kind in EventKind
            ),
        ),
    ]
    for layout in dict.fromkeys(records.EVENT_LAYOUTS.values()):
        parts += [f"\n### {_named(layout)}\n\n", layout_table(layout, header)]
    return "".join(parts)


def _log_entries() -> str:
    rows = (
        (0, "u8", "type", "0"),
        (1, "u8", "version", batches.VERSION),
        (2, "u16", "details", "number of details"),
        (4, "u32", "count", "number of commands"),
        (8, "i64", "time_ns", "the leader's stamp"),
        (16, "u64", "sequence", "last command that the leader had applied"),
        (24, "u64", "state_hash", "its state hash then"),
    )
    return (
        "\n## Log entries\n\nNodes replicate entries of at most "
        f"{batches.MAX_ENTRY_BYTES} bytes: a header of {batches.HEADER_SIZE} bytes, the commands, their details.\n\n"
        + _table("offset|type|field|meaning", rows)
    )


def _enums() -> str:
    names = [
        kind
        for kind in vars(codes).values()
        if isinstance(kind, type) and issubclass(kind, IntEnum | IntFlag) and kind.__module__ == codes.__name__
    ]
    shown = [kind for kind in names if kind not in (Reason, CommandKind, EventKind)]
    return (
        "\n## Enumerations\n\n| enumeration | values |\n|---|---|\n"
        + "\n".join(_enum_table(kind) for kind in shown)
        + "\n\nReasons, in the order of their checks: the first that fails is the one reported.\n\n"
        + _table("Reason|number|meaning", ((item.name, int(item), REASON_TEXTS[item]) for item in Reason))
    )


def _examples() -> str:
    parts = ["\n## Examples\n\nOne of each record and frame; fields that are not named are 0.\n"]
    for name, layout, values in EXAMPLES:
        shown, raw = example(layout, **values)
        parts.append(f"\n{name}: {shown}\n\n```text\n{_wrapped(raw)}\n```\n")
    for kind, data in frame_examples().items():
        parts.append(f"\nFrame {kind}\n\n```text\n{_wrapped(data.hex())}\n```\n")
    return "".join(parts)


def _wrapped(raw: str) -> str:
    return "\n".join(raw[at : at + 64] for at in range(0, len(raw), 64))


if __name__ == "__main__":
    click.echo(protocol(), nl=False)
