"""The same commands give the same state hash, whatever the batches, restores and processes."""

import os
import random
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from smrx.engine import Engine, SnapshotError
from smrx.wire.codes import (
    CommandKind,
    EventKind,
    OrderFlags,
    OrderType,
    OutcomeStatus,
    Stp,
    TimeInForce,
)
from smrx.wire.command_list import NO_DETAILS
from smrx.wire.records import DETAILS_FIELDS
from tests.commands import join, part
from tests.oracle import Oracle, Result
from tests.property.comparison import Answers, difference, restored, run
from tests.property.flow import STEPS, Batch, Tape, build_tape, seeded_steps, seeded_tape
from tests.property.repeat import hex_command

ROOT = Path(__file__).parents[2]
#: The tape of the tests that compare processes and batch sizes: long enough to use every feature.
SEED, LONG = 14, 2_000
#: For interpreted kernels.
SHORT = 400
#: The commands of so many nanoseconds get one stamp in the coarse tape: about a thousand commands.
COARSE_STAMP_NS = 250_000_000_000


@cache
def long_tape_answers() -> Answers:
    return run(Engine(), seeded_tape(SEED, LONG))[1]


def test_tape_has_every_feature() -> None:
    """Determinism is shown only for features that the tape uses."""
    (commands, details), answers = seeded_tape(SEED, LONG).commands, long_tape_answers()
    accepted = commands[answers.outcomes["status"] == OutcomeStatus.ACCEPTED]
    orders = accepted[accepted["kind"] == CommandKind.PLACE]
    # The switch to another version of the rules ends what this program can apply.
    assert set(accepted["kind"].tolist()) == set(CommandKind) - {CommandKind.SET_VERSION}
    assert set(answers.events["kind"].tolist()) == set(EventKind) - {EventKind.VERSION_SET}
    for name, values in (("order_type", OrderType), ("tif", TimeInForce), ("stp", Stp)):
        assert set(orders[name].tolist()) == set(values)
    assert {0, OrderFlags.POST_ONLY, OrderFlags.QUOTE_BUDGET} <= set(orders["flags"].tolist())
    named = orders[orders["details"] != 0]
    for name in DETAILS_FIELDS[CommandKind.PLACE]:
        values = details[name][named["details"].astype(int) - 1]
        assert np.count_nonzero(values.astype(bool)) > 10, name


def with_coarse_stamps(tape: Tape) -> Tape:
    """Return the same commands with fewer time stamps, one batch for each."""
    batches: list[Batch] = []
    for batch in tape.batches:
        stamp = batch.time_ns // COARSE_STAMP_NS * COARSE_STAMP_NS
        if batches and batches[-1].time_ns == stamp:
            batches[-1] = Batch(stamp, join([batches[-1].commands, batch.commands]))
        else:
            batches.append(Batch(stamp, batch.commands))
    return Tape(batches)


def cut(tape: Tape, size: int) -> Tape:
    """Return the tape in batches of a size, or less where the stamp changes."""
    return Tape(
        [
            Batch(batch.time_ns, part(batch.commands, at, at + size))
            for batch in tape.batches
            for at in range(0, len(batch.commands.records), size)
        ]
    )


@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_batch_size_does_not_change_results(size: int) -> None:
    """Compared with one batch for each stamp, some of more than a thousand commands."""
    tape = with_coarse_stamps(seeded_tape(SEED, LONG))
    assert max(len(batch.commands.records) for batch in tape.batches) > 1_000
    _, expected = run(Engine(), tape)
    engine, found = run(Engine(), cut(tape, size))
    assert_same(tape, expected, found, f"batches of {size}")
    assert engine.content_hash() == engine.recompute_content_hash()


def single_and_joined(tape: Tape) -> list[Tape]:
    """Return the tape with batches of one, and with adjacent batches of the same stamp joined."""
    single = cut(tape, 1).batches
    joined: list[Batch] = []
    for batch in tape.batches:
        if joined and joined[-1].time_ns == batch.time_ns:
            joined[-1] = Batch(batch.time_ns, join([joined[-1].commands, batch.commands]))
        else:
            joined.append(batch)
    return [Tape(single), Tape(joined)]


def recut(tape: Tape, seed: int) -> Tape:
    """Return the same commands and stamps in other batches, with empty ones between."""
    source = random.Random(seed)
    batches: list[Batch] = []
    for batch in tape.batches:
        length = len(batch.commands.records)
        cuts = sorted({0, length, *source.choices(range(length + 1), k=3)})
        for start, end in pairwise(cuts):
            batches.append(Batch(batch.time_ns, part(batch.commands, start, end)))
        batches.append(Batch(batch.time_ns, part(batch.commands, 0, 0)))
    return Tape(batches)


def assert_same(tape: Tape, expected: Answers, found: Answers, how: str) -> None:
    report = difference(tape, expected, found)
    assert report is None, f"{how}\n{report}"


@given(steps=STEPS, seed=st.integers(0, 1 << 16))
def test_batch_boundaries_do_not_change_results(steps: list[bytes], seed: int) -> None:
    tape = build_tape(steps)
    engine, expected = run(Engine(), tape)
    for other in (*single_and_joined(tape), recut(tape, seed)):
        again, found = run(Engine(), other)
        assert_same(tape, expected, found, f"repeat: {hex_command(steps)}, cut {seed}")
        assert again.content_hash() == engine.content_hash()


@given(steps=STEPS, at=st.sets(st.integers(0, 60), max_size=4))
def test_restores_do_not_change_results(steps: list[bytes], at: set[int]) -> None:
    tape = build_tape(steps)
    _, expected = run(Engine(), tape)
    batches = [batch._replace(restore_after=index in at) for index, batch in enumerate(tape.batches)]
    engine, found = run(Engine(), Tape(batches), restore=True)
    assert_same(tape, expected, found, f"repeat: {hex_command(steps)}, restored after batches {sorted(at)}")
    assert engine.content_hash() == engine.recompute_content_hash()


@pytest.mark.parametrize("orders", [1, 2, 50_000])
def test_initial_sizes_do_not_change_results(orders: int) -> None:
    """Tables grow between commands, and neither results nor snapshots show it."""
    engine, found = run(Engine(orders=orders, accounts=orders), seeded_tape(SEED, LONG))
    assert_same(seeded_tape(SEED, LONG), long_tape_answers(), found, f"initial size {orders}")
    assert restored(engine).content_hash() == engine.content_hash()


@pytest.mark.parametrize("seed", range(3))
def test_random_restores_of_a_long_run_do_not_change_results(seed: int) -> None:
    tape = seeded_tape(SEED, LONG)
    source = random.Random(seed)
    batches = [batch._replace(restore_after=source.random() < 0.02) for batch in tape.batches]
    _, found = run(Engine(), Tape(batches), restore=True)
    assert_same(tape, long_tape_answers(), found, f"restored at the points of seed {seed}")


def test_engine_without_hashes_gives_the_same_events() -> None:
    _, found = run(Engine(hash=False), seeded_tape(SEED, LONG))
    assert found.events.tobytes() == long_tape_answers().events.tobytes()
    assert found.outcomes.tobytes() == long_tape_answers().outcomes.tobytes()


PRINT_HASH = """
import sys
from smrx.engine import Engine
from tests.property.comparison import run
from tests.property.flow import build_tape, seeded_steps
engine, _ = run(Engine(), build_tape(seeded_steps(int(sys.argv[1]), int(sys.argv[2]))))
print(f"{engine.state_hash:016x}")
"""


def hash_in_subprocess(count: int, **environment: str) -> str:
    """Return the hash after the first steps, computed by another process."""
    done = subprocess.run(
        [sys.executable, "-c", PRINT_HASH, str(SEED), str(count)],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_another_process_gets_the_same_hash(hash_seed: str) -> None:
    assert hash_in_subprocess(LONG, PYTHONHASHSEED=hash_seed) == f"{int(long_tape_answers().hashes[-1]):016x}"


def test_interpreted_kernels_get_the_same_hash() -> None:
    engine, _ = run(Engine(), seeded_tape(SEED, SHORT))
    assert hash_in_subprocess(SHORT, NUMBA_DISABLE_JIT="1") == f"{engine.state_hash:016x}"


class CountsCalls(Oracle):
    """Deliberate bug: the number of batches changes the state."""

    def apply(self, commands: NDArray[np.void], time_ns: int, details: NDArray[np.void] = NO_DETAILS) -> Result:
        self.state.time_ns += 1
        return super().apply(commands, time_ns, details)


class LossyRestoreEngine(Engine):
    """Deliberate bug: one unit of money is missing after a restore."""

    @classmethod
    def restore(cls, data: bytes) -> Any:
        engine = super().restore(data)
        engine.corrupt_balance(1, 1, -1)
        return engine


def test_batch_dependent_state_is_noticed() -> None:
    tape = build_tape(seeded_steps(15, 50))
    _, expected = run(CountsCalls(), tape)
    _, found = run(CountsCalls(), recut(tape, 1))
    assert difference(tape, expected, found) is not None


def test_lossy_restore_is_noticed() -> None:
    engine, _ = run(LossyRestoreEngine(), build_tape(seeded_steps(15, 50)))
    with pytest.raises((AssertionError, SnapshotError)):
        restored(engine)
