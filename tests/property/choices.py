"""Read the bytes of a step as choices, and make choices that many steps share: an account, a side, a sender."""

from typing import TypeVar

from smrx.wire.codes import Permission, Side
from tests.commands import Sender
from tests.oracle import Oracle

T = TypeVar("T")

#: Client order ids of the flow, short and long ones. The last two have the same 64-bit form.
COLLIDING_IDS = (
    "iph9UhQuaAmKOdeE8B-UUPjVXGiXweSpyq48vL1FTLnatbQgmAmRD4IHmXa8LgNU",
    "xd9reeE6pT8b7MJP4tKtGUilR3Allh_zhqJWhTpr3DrCm1uGKZy_puF8MCdSyIhZ",
)
CLIENT_ORDER_IDS = ("1", "~ ~ ~ ~ ", "123456789", "a long id, " * 5, "12345678", *COLLIDING_IDS)
VENUE_SESSION = 1
TRADE, ADMINISTER, GATEWAY = Permission.TRADE, Permission.ADMINISTER, Permission.GATEWAY
#: Sessions of a credential that does not exist, and those that no credential opened.
FORGED_SESSIONS = (*((99 << 32) + at for at in range(4)), 21 << 32, 31 << 32, (1 << 64) - 1, 21)
ACCOUNTS = (1, 2, 3, 4)
ASSETS = (1, 2, 3)
INSTRUMENTS = (1, 2)


class Choices:
    """A step: each choice takes the next byte; a step without more bytes gives 0."""

    def __init__(self, step: bytes) -> None:
        self.step = step
        self.rest = iter(step)

    def below(self, bound: int) -> int:
        return next(self.rest, 0) % bound

    def byte(self) -> int:
        return next(self.rest, 0)

    def of(self, options: tuple[T, ...]) -> T:
        return options[self.below(len(options))]


def sender(choices: Choices, oracle: Oracle, account: int) -> Sender:
    """Choose a sender: mostly the account's own session and its next request id."""
    who, request = choices.byte(), choices.byte()
    session_id = 10 + account
    if who >= 248:
        session_id = 11 + who % 5
    elif (100 if account else 150) <= who < 200 and oracle.state.knows_credentials:
        session_id = credential_session(choices, oracle, account)
    elif who >= 200 or account == 0:
        session_id = VENUE_SESSION
    known = oracle.state.sessions.get(session_id)
    if (known is None or known.closed) and who % 8:
        session_id = VENUE_SESSION
    session = oracle.state.sessions.get(session_id)
    last = session.last_request_id if session else 0
    if request >= 253:
        return session_id, 0
    if request >= 250:
        return session_id, last + request - 248
    if request >= 244:
        return session_id, max(0, last - (request - 244))
    return session_id, last + 1


def credential_session(choices: Choices, oracle: Oracle, account: int) -> int:
    """Choose a session of a credential, mostly of one that may act for the account; seldom one that is not open."""
    state, how = oracle.state, choices.byte()
    if how >= 248:
        return FORGED_SESSIONS[how - 248]
    own = [session_id for session_id in state.sessions if session_id >> 32]
    able = [
        session_id
        for session_id in own
        if (known := state.credentials.get(session_id >> 32))
        and not state.sessions[session_id].closed
        and not known.standing(state.time_ns)
        and (
            known.has_one_of(TRADE) and known.covers(account, state.accounts)
            if account
            else known.has_one_of(ADMINISTER) and known.is_venues
        )
    ]
    picked = able if how < 224 else own
    return picked[how % len(picked)] if picked else 10 + account


def pick_person(choices: Choices, oracle: Oracle, sent_by: Sender, account: int) -> int:
    """Choose the person behind an order: for a gateway mostly one who may trade for the account; mostly none else."""
    state, how = oracle.state, choices.byte()
    gateway = state.credentials.get(sent_by[0] >> 32)
    if not state.knows_credentials or how < 120 or (how < 248 and not (gateway and gateway.permissions & GATEWAY)):
        return 0
    known = tuple(state.credentials)
    able = tuple(number for number, known in state.credentials.items() if known.covers(account, state.accounts))
    picked = able if able and how < 220 else known
    return picked[how % len(picked)] if picked and how < 252 else 1 + how


def pick_account(choices: Choices) -> int:
    value = choices.byte()
    return (0, 7)[value & 1] if value >= 250 else ACCOUNTS[value % len(ACCOUNTS)]


def pick_client_order_id(choices: Choices) -> str:
    """Choose a client order id; mostly none."""
    pick = choices.byte() // 8 - 24
    return CLIENT_ORDER_IDS[pick - 1] if pick > 0 else ""


def pick_side(choices: Choices) -> Side:
    return choices.of((Side.BUY, Side.SELL))


def pick_instrument(choices: Choices) -> int:
    value = choices.byte()
    return 3 if value >= 252 else INSTRUMENTS[value >= 150]
