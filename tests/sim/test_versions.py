"""Nodes of two versions read each other's entries as specified, and a run restores the decoders at its end."""

import pytest

from smrx.consensus import messages
from smrx.engine.kernels.rules_version import NEWEST_RULES
from smrx.sim.versions import CURRENT_VERSION, NEXT_VERSION, EntryFormats, mixed_versions
from smrx.wire import batches
from smrx.wire.frames import FrameError
from tests.consensus.stock import NumbersMethods

ENTRY = batches.encode(bytes(64), 5, 1, 2)


def test_next_version_reads_both_formats_and_current_version_only_its_own() -> None:
    with mixed_versions(EntryFormats()) as versions:
        newer = versions.formats.write(ENTRY, NEWEST_RULES + 1)
        assert newer[1] == batches.VERSION + 1
        assert versions.formats.write(ENTRY, NEWEST_RULES) == ENTRY
        with pytest.raises(FrameError, match=f"expected version {batches.VERSION}, found {batches.VERSION + 1}"):
            batches.decode(newer)
        assert messages.entry_fault(newer) == f"expected entry version {batches.VERSION}, found {batches.VERSION + 1}"
        versions.select(NEXT_VERSION)
        for entry in (ENTRY, newer):
            assert messages.entry_fault(entry) is None
            assert batches.decode(entry).time_ns == 5
        versions.select(CURRENT_VERSION)
        assert messages.entry_fault(newer) is not None


def test_decoders_are_restored_after_the_run() -> None:
    decoders = messages.entry_fault, batches.decode
    with mixed_versions(EntryFormats()) as versions:
        versions.select(NEXT_VERSION)
        assert (messages.entry_fault, batches.decode) != decoders
    assert (messages.entry_fault, batches.decode) == decoders


def test_entry_with_positional_method_numbers_is_misread_by_the_next_version() -> None:
    with mixed_versions(NumbersMethods()) as versions:
        assert len(batches.decode(ENTRY).commands) == 1
        versions.select(NEXT_VERSION)
        assert len(batches.decode(ENTRY).commands) == 0
