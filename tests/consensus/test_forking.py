"""A fork without part of the memory: the child lacks exactly that, the parent nothing."""

import faulthandler
import mmap
import os
import signal
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from smrx.consensus import forking
from smrx.consensus.forking import fork
from smrx.engine import Engine
from smrx.wire.codes import OutcomeStatus
from tests import commands as make

#: Enough for the allocator to give it pages of its own.
SIZE = 4 << 20

linux = pytest.mark.skipif(not hasattr(mmap, "MADV_DONTFORK"), reason="this system leaves no memory out of a fork")


def end_of_child(look: Callable[[], object], left_out: Iterable[NDArray[Any]]) -> int:
    """How a child ends that looks at something: 0, 1 if it is false, or less than 0 for a signal."""
    pid = fork(left_out)
    if pid == 0:
        faulthandler.disable()
        os._exit(0 if look() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def memory() -> NDArray[Any]:
    return np.arange(SIZE // 8, dtype=np.uint64)


@linux
def test_child_lacks_only_excluded_memory() -> None:
    here, out = memory(), memory()
    assert end_of_child(lambda: here.sum() == memory().sum(), [out]) == 0
    assert end_of_child(out.sum, [out]) == -signal.SIGSEGV


@linux
def test_parent_and_other_children_keep_excluded_memory() -> None:
    out = memory()
    assert end_of_child(lambda: True, [out]) == 0
    assert np.array_equal(out, memory())
    assert end_of_child(lambda: np.array_equal(out, memory()), []) == 0


def test_engine_snapshot_works_without_excluded_arrays() -> None:
    engine = Engine(orders=1 << 17)
    result = make.apply(engine, make.join([make.open_session(1, 0), make.open_account((1, 1), 7)]), 1)
    assert set(result.outcomes["status"]) == {OutcomeStatus.ACCEPTED}
    assert max(array.nbytes for array in engine.arrays_outside_snapshot()) >= SIZE
    saved = engine.snapshot()
    assert end_of_child(lambda: engine.snapshot() == saved, engine.arrays_outside_snapshot()) == 0


def test_small_arrays_are_not_excluded() -> None:
    small, loose = memory()[: 1 << 10], memory()[::2]
    assert end_of_child(lambda: small.sum() > 0 and loose.sum() > 0, [small, loose]) == 0


@linux
def test_failed_fork_restores_excluded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    out = memory()

    def refuse() -> int:
        raise BlockingIOError("no more processes")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fork", refuse)
        with pytest.raises(BlockingIOError):
            fork([out])
    assert end_of_child(lambda: np.array_equal(out, memory()), []) == 0


def test_child_has_all_memory_without_madvise(monkeypatch: pytest.MonkeyPatch) -> None:
    out = memory()
    monkeypatch.setattr(forking, "madvise", lambda: None)
    assert end_of_child(lambda: np.array_equal(out, memory()), [out]) == 0
