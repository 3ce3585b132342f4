"""Batches, the entries of the Raft log, round-trip; damaged ones raise FrameError."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smrx.wire import batches, frames
from smrx.wire.frames import FrameError
from smrx.wire.records import COMMAND, COMMAND_SIZE, DETAILS, DETAILS_SIZE
from tests.wire.mutation import mutated


@given(st.integers(0, 20), st.integers(0, 5), st.integers(-(1 << 63), (1 << 63) - 1), st.integers(0, (1 << 64) - 1))
def test_batch_round_trips(count: int, more: int, time_ns: int, sequence: int) -> None:
    random = np.random.default_rng(count)
    commands = np.frombuffer(random.bytes(COMMAND_SIZE * count), COMMAND)
    details = random.bytes(DETAILS_SIZE * more)
    entry = batches.encode(commands.tobytes(), time_ns, sequence, sequence ^ 1, details)
    parts = [memoryview(commands[i : i + 3].tobytes()) for i in range(0, count, 3)]
    assert batches.encode(parts, time_ns, sequence, sequence ^ 1, details) == entry
    assert entry[0] == 0, "PySyncObj reads the first byte as the command type"
    batch = batches.decode(entry)
    assert (batch.time_ns, batch.sequence, batch.state_hash) == (time_ns, sequence, sequence ^ 1)
    assert batch.commands.tobytes() == commands.tobytes()
    assert (batch.details.dtype, batch.details.tobytes()) == (DETAILS, details)


@given(
    mutated(st.integers(0, 4).map(lambda n: batches.encode(bytes(64 * n), 1, 2, 3, bytes(n // 2 * 128))))
    | st.binary(max_size=200)
)
def test_any_bytes_decode_to_a_batch_or_raise_frame_error(data: bytes) -> None:
    try:
        batch = batches.decode(data)
    except FrameError:
        return
    assert batches.encode(batch.commands.tobytes(), *batch[:3], batch.details.tobytes()) == data


def test_batch_stays_below_one_mebibyte() -> None:
    most = (batches.MAX_ENTRY_BYTES - batches.HEADER_SIZE) // COMMAND_SIZE
    assert most >= frames.MAX_COMMANDS
    assert len(batches.encode(bytes(COMMAND_SIZE * most), 0, 0, 0)) <= batches.MAX_ENTRY_BYTES < 1 << 20
    with pytest.raises(ValueError, match="at most"):
        batches.encode(bytes(COMMAND_SIZE * (most + 1)), 0, 0, 0)
    with pytest.raises(ValueError, match="whole commands"):
        batches.encode(bytes(63), 0, 0, 0)
    with pytest.raises(ValueError, match="whole details"):
        batches.encode(bytes(64), 0, 0, 0, bytes(127))
    # A frame of the largest size fits an entry, with its details.
    largest = frames.MAX_COMMANDS * (COMMAND_SIZE + DETAILS_SIZE)
    assert batches.HEADER_SIZE + largest <= batches.MAX_ENTRY_BYTES
    too_long = batches.encode(b"", 0, 0, 0)[:4] + (most + 1).to_bytes(4, "little") + bytes(24 + 64 * (most + 1))
    with pytest.raises(FrameError, match="at most"):
        batches.decode(too_long)
