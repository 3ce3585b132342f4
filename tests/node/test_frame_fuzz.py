"""Order entry refuses every frame that is not whole, and gives no command the details of another client.

Frames of several clients, some of them hostile, go through order entry. A second reading of the protocol, which shares
no code with the first, says which of them are accepted and what each command and its details are. The log entries must
hold exactly those.
"""

import random
import struct
from collections.abc import Callable
from typing import Final

import pytest

from smrx.node import order_entry as order_entry_module
from smrx.node.order_entry import OrderEntry
from smrx.wire import batches, frames
from smrx.wire.codes import CommandKind
from smrx.wire.frames import ErrorCode, FrameKind, LeaderHint

LEADING = LeaderHint(1, "tcp://127.0.0.1:1", 1, 5)
TURNS: Final = 60
SEEDS: Final = range(25)

#: A command and its details, None if it has none.
Sent = tuple[bytes, bytes | None]


def made_frame(random_: random.Random, client: int) -> bytes:
    """Return a frame of commands with details, or one that is damaged in one of many ways."""
    count = random_.choice((1, 1, 1, 2, 3, 9, 40))
    details = random_.choice((0, 0, 1, 2, 3, 9))
    commands = []
    for at in range(count):
        command = bytearray(random_.randbytes(64))
        command[0] = random_.choice((CommandKind.PLACE, CommandKind.CANCEL, CommandKind.REPLACE, 99))
        number = random_.randint(0, details)
        command[6:8] = number.to_bytes(2, "little")
        # So that a mixed-up command shows whose it is.
        command[8:16] = (client << 32 | at).to_bytes(8, "little")
        commands.append(bytes(command))
    records = [random_.randbytes(126) + client.to_bytes(2, "little") for _ in range(details)]
    damage = random_.choice((*("none",) * 8, "number", "number", "counts", "size", "header", "timer", "cut", "noise"))
    if damage == "number":
        at = random_.randrange(count)
        number = random_.choice((details + 1, details + 1, details + 2, 255, 256, 4096, 65_535))
        commands[at] = commands[at][:6] + number.to_bytes(2, "little") + commands[at][8:]
    elif damage == "timer":
        at = random_.randrange(count)
        commands[at] = bytes((random_.choice((CommandKind.TICK, CommandKind.DISCONNECT)),)) + commands[at][1:]
    body = b"".join(commands) + b"".join(records)
    counts = [count, details]
    if damage == "counts":
        # Two commands less and one details more have the same size.
        counts = random_.choice(
            ([count + 2, details - 1], [count - 2, details + 1], [0, details], [2**32 - 1, details])
        )
    elif damage == "size":
        counts[random_.randrange(2)] = random_.choice((4096, 4097, 65_536, 2**32 - 1))
    frame = bytearray(struct.pack("<4sBBHIIQQ", b"SMRX", 2, 1, 0, *(n % 2**32 for n in counts), client, 0) + body)
    if damage == "header":
        frame[random_.randrange(8)] ^= 1 << random_.randrange(8)
    elif damage == "cut":
        del frame[random_.randrange(len(frame)) :]
    elif damage == "noise":
        frame += random_.randbytes(random_.randrange(1, 200))
    return bytes(frame)


def expected_commands(frame: bytes) -> list[Sent] | None:
    """Return the commands of a frame with their details, or None if order entry must refuse it."""
    if len(frame) < 32 or frame[:8] != b"SMRX\x02\x01\x00\x00":
        return None
    count, details = struct.unpack("<II", frame[8:16])
    body = frame[32:]
    if not 1 <= count <= 4096 or details > 4096 or len(body) != 64 * count + 128 * details:
        return None
    sent: list[Sent] = []
    for at in range(count):
        command = body[64 * at : 64 * at + 64]
        number = command[6] + 256 * command[7]
        if number > details or command[0] in (18, 20):
            return None
        start = 64 * count + 128 * (number - 1)
        sent.append((command[:6] + command[8:], body[start : start + 128] if number else None))
    return sent


def logged_commands(order_entry: OrderEntry) -> list[Sent]:
    """Return the commands in the log entries of a turn with the details that the engine would find."""
    found: list[Sent] = []
    for bodies, details, _ in order_entry.take_batches():
        batch = batches.decode(batches.encode(bodies, 1, 2, 3, details))
        for command in batch.commands:
            number = int(command["details"])
            assert number <= len(batch.details), "a command names details that the entry does not have"
            raw = command.tobytes()
            found.append((raw[:6] + raw[8:], batch.details[number - 1].tobytes() if number else None))
    return found


def run(seed: int) -> tuple[int, int, int]:
    """Return how many frames were accepted and refused, and how many log entries held details of several clients."""
    random_ = random.Random(seed)
    order_entry = OrderEntry(1, 1 << 20)
    accepted = refused = mixed = 0
    for turn in range(TURNS):
        expected: list[Sent] = []
        with_details = set()
        for client in range(1, random_.randint(2, 8)):
            frame = made_frame(random_, turn << 8 | client)
            sent = expected_commands(frame)
            order_entry.receive(bytes((client,)), frame, LEADING, None)
            replies = order_entry.take_replies()
            if sent is not None:
                assert not replies, f"seed {seed}: a valid frame was refused: {replies}"
                expected += sent
                with_details |= {client for _, details in sent if details is not None}
                accepted += 1
                continue
            refused += 1
            assert len(replies) == 1, f"seed {seed}: a damaged frame was accepted"
            ((identity, reply),) = replies
            answer = frames.decode(reply)
            assert (identity, answer.kind) in ((bytes((client,)), FrameKind.ERROR), (bytes((client,)), FrameKind.PONG))
            if answer.kind is FrameKind.ERROR:
                body = frames.error_body(answer)
                assert body.code in (
                    ErrorCode.MALFORMED_FRAME,
                    ErrorCode.TOO_MANY_COMMANDS,
                    ErrorCode.UNSUPPORTED_VERSION,
                    ErrorCode.FORBIDDEN,
                )
                assert body.message
        mixed += len(with_details) > 1
        assert logged_commands(order_entry) == expected, f"seed {seed}, turn {turn}: a command or its details differ"
        assert order_entry.waiting_commands >= len(expected)
    return accepted, refused, mixed


@pytest.mark.parametrize("seed", SEEDS)
def test_entries_hold_the_commands_of_valid_frames_with_their_own_details(seed: int) -> None:
    accepted, refused, mixed = run(seed)
    assert min(accepted, refused, mixed) > 5, "the frames cover too little"


def no_check_of_numbers(frame: frames.Frame) -> None:
    """Accept every frame, as if the numbers of details needed no check."""


def not_renumbered(commands: memoryview, before: int) -> memoryview:
    """Leave the numbers of details as the client counted them."""
    return commands


def counted_from_zero(commands: memoryview, before: int) -> memoryview:
    """Count the details of a frame one too low."""
    return RENUMBERED(commands, before - 1)


RENUMBERED = order_entry_module._renumbered


@pytest.mark.parametrize(
    ("name", "fault"),
    [("_fault", no_check_of_numbers), ("_renumbered", not_renumbered), ("_renumbered", counted_from_zero)],
)
def test_fuzz_finds_a_deliberate_fault(
    name: str, fault: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order_entry_module, name, fault)
    with pytest.raises(AssertionError):
        list(map(run, SEEDS))
