"""Nodes of two versions: what each reads of the other, and that nothing of it outlasts the run."""

import pytest

from smrx.consensus import messages
from smrx.sim.versions import NEXT, PRESENT, Formats, several
from smrx.wire import batches
from smrx.wire.frames import FrameError
from tests.consensus.stock import NumbersMethods

ENTRY = batches.encode(bytes(64), 5, 1, 2)


def test_the_next_version_reads_both_and_the_present_one_its_own() -> None:
    with several(Formats()) as versions:
        later = versions.formats.write(ENTRY, NEXT)
        assert later[1] == batches.VERSION + 1
        assert versions.formats.write(ENTRY, PRESENT) == ENTRY
        with pytest.raises(FrameError, match="expected version 1, found 2"):
            batches.decode(later)
        assert messages.entry_fault(later) == "expected entry version 1, found 2"
        versions.view(NEXT)
        for entry in (ENTRY, later):
            assert messages.entry_fault(entry) is None
            assert batches.decode(entry).time_ns == 5
        versions.view(PRESENT)
        assert messages.entry_fault(later) is not None


def test_after_the_run_entries_are_read_as_before() -> None:
    reads = messages.entry_fault, batches.decode
    with several(Formats()) as versions:
        versions.view(NEXT)
        assert (messages.entry_fault, batches.decode) != reads
    assert (messages.entry_fault, batches.decode) == reads


def test_with_methods_numbered_by_position_an_entry_is_another_command_for_the_next_version() -> None:
    with several(NumbersMethods()) as versions:
        assert len(batches.decode(ENTRY).commands) == 1
        versions.view(NEXT)
        assert len(batches.decode(ENTRY).commands) == 0
