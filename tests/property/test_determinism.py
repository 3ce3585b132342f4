"""The same commands give the same hash, however they are cut, wherever they are restored, whoever runs them."""

import os
import random
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smrx.engine import Engine, SnapshotError
from tests.oracle import Oracle, Result
from tests.property.comparison import Answers, difference, restored, run
from tests.property.flow import STEPS, Batch, Tape, build_tape, seeded_steps
from tests.property.repeat import hex_command

ROOT = Path(__file__).parents[2]
STEPS_HERE = 400


def whole(tape: Tape) -> list[Tape]:
    """The tape with batches of one, and with neighbours of the same stamp in one batch."""
    single = [
        Batch(batch.time_ns, batch.commands[at : at + 1]) for batch in tape.batches for at in range(len(batch.commands))
    ]
    joined: list[Batch] = []
    for batch in tape.batches:
        if joined and joined[-1].time_ns == batch.time_ns:
            joined[-1] = Batch(batch.time_ns, np.concatenate([joined[-1].commands, batch.commands]))
        else:
            joined.append(batch)
    return [Tape(single), Tape(joined)]


def recut(tape: Tape, seed: int) -> Tape:
    """The same commands and stamps in other batches, with empty ones between."""
    source = random.Random(seed)
    batches: list[Batch] = []
    for batch in tape.batches:
        cuts = sorted({0, len(batch.commands), *source.choices(range(len(batch.commands) + 1), k=3)})
        for start, end in pairwise(cuts):
            batches.append(Batch(batch.time_ns, batch.commands[start:end]))
        batches.append(Batch(batch.time_ns, batch.commands[:0]))
    return Tape(batches)


def assert_same(tape: Tape, expected: Answers, found: Answers, how: str) -> None:
    told = difference(tape, expected, found)
    assert told is None, f"{how}\n{told}"


@given(steps=STEPS, seed=st.integers(0, 1 << 16))
def test_batches_do_not_matter(steps: list[bytes], seed: int) -> None:
    tape = build_tape(steps)
    engine, expected = run(Engine(), tape)
    for other in (*whole(tape), recut(tape, seed)):
        again, found = run(Engine(), other)
        assert_same(tape, expected, found, f"repeat: {hex_command(steps)}, cut {seed}")
        assert again.content_digest() == engine.content_digest()


@given(steps=STEPS, at=st.sets(st.integers(0, 60), max_size=4))
def test_snapshots_do_not_matter(steps: list[bytes], at: set[int]) -> None:
    tape = build_tape(steps)
    _, expected = run(Engine(), tape)
    batches = [batch._replace(restore_after=index in at) for index, batch in enumerate(tape.batches)]
    engine, found = run(Engine(), Tape(batches), restore=True)
    assert_same(tape, expected, found, f"repeat: {hex_command(steps)}, restored after batches {sorted(at)}")
    assert engine.content_digest() == engine.content_digest_from_scratch()


@pytest.mark.parametrize("sizes", [{"orders": 1, "accounts": 1}, {"orders": 2, "accounts": 3}, {"orders": 50_000}])
def test_first_sizes_do_not_matter(sizes: dict[str, int]) -> None:
    """Growth happens between commands and shows nowhere, not even in a snapshot's meaning."""
    tape = build_tape(seeded_steps(11, STEPS_HERE))
    _, expected = run(Engine(), tape)
    engine, found = run(Engine(**sizes), tape)
    assert_same(tape, expected, found, f"sizes {sizes}")
    assert restored(engine).content_digest() == engine.content_digest()


def test_engine_without_hashes_answers_the_same() -> None:
    tape = build_tape(seeded_steps(12, STEPS_HERE))
    _, expected = run(Engine(), tape)
    _, found = run(Engine(hash=False), tape)
    assert found.events.tobytes() == expected.events.tobytes()
    assert found.outcomes.tobytes() == expected.outcomes.tobytes()


PRINT_HASH = f"""
from smrx.engine import Engine, SnapshotError
from tests.oracle import Oracle, Result
from tests.property.comparison import run
from tests.property.flow import build_tape, seeded_steps
engine, _ = run(Engine(), build_tape(seeded_steps(13, {STEPS_HERE})))
print(f"{{engine.state_hash:016x}}")
"""


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_another_process_gets_the_same_hash(hash_seed: str) -> None:
    engine, _ = run(Engine(), build_tape(seeded_steps(13, STEPS_HERE)))
    done = subprocess.run(
        [sys.executable, "-c", PRINT_HASH],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.stdout.strip(), done.returncode) == (f"{engine.state_hash:016x}", 0), done.stderr


class CountsCalls(Oracle):
    """Wrong on purpose: lets the number of batches into the state."""

    def apply(self, commands: Sequence[np.void] | np.ndarray[Any, Any], time_ns: int) -> Result:
        self.state.time_ns += 1
        return super().apply(commands, time_ns)


class ForgetfulEngine(Engine):
    """Wrong on purpose: one unit of money is missing after a restore."""

    @classmethod
    def restore(cls, data: bytes) -> Self:
        engine = super().restore(data)
        engine.corrupt_balance(1, 1, -1)
        return engine


def test_state_that_depends_on_batches_is_noticed() -> None:
    tape = build_tape(seeded_steps(15, 50))
    _, expected = run(CountsCalls(), tape)
    _, found = run(CountsCalls(), recut(tape, 1))
    assert difference(tape, expected, found) is not None


def test_restore_that_loses_something_is_noticed() -> None:
    engine, _ = run(ForgetfulEngine(), build_tape(seeded_steps(15, 50)))
    with pytest.raises((AssertionError, SnapshotError)):
        restored(engine)
