"""Every planted fault is found within a stated number of seeds.

PLANTED_FAULTS has a line for each fault of the table in smrx/consensus/README.md that a simulation can show, and for
faults that are not the library's. Each was found within the given number of seeds, from `start` on, when it was added.
NOT_SHOWN explains every other row; tests/consensus has a test of each.
"""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from smrx.config import Timing
from smrx.sim import REAL, ClusterComponents, simulate
from smrx.sim.simulated_node import SimulatedNode
from tests.consensus import stock
from tests.sim import broken, profiles
from tests.sim.forwarding import ForwardsToLeader
from tests.sim.profiles import Focus

README = Path(__file__).resolve().parents[2] / "smrx/consensus/README.md"

_LONG_FALLBACK = Timing(heartbeat_ms=50, election_min_ms=600, election_max_ms=1200, leader_fallback_ms=30_000)
_SIMULTANEOUS_ELECTIONS = Timing(heartbeat_ms=50, election_min_ms=600, election_max_ms=640, leader_fallback_ms=450)


class PlantedFault(NamedTuple):
    """A broken component, and the seeds within which it is found."""

    #: The row of the table, empty for a fault that is not the library's.
    row: str
    name: str
    components: ClusterComponents
    seeds: int
    #: A pattern of the failure.
    failure: str
    focus: Focus = profiles.as_drawn
    #: The first seed.
    start: int = 0
    #: Whether the run has reads.
    reads: bool = False


PLANTED_FAULTS = [
    PlantedFault(
        "1",
        "trusts any commit index",
        REAL.replace(replica=stock.TrustsAnyCommitIndex),
        60,
        "log agreement|majority",
        start=100,
    ),
    PlantedFault(
        "2",
        "votes without its log",
        REAL.replace(replica=stock.VotesWithoutItsLog),
        40,
        "log agreement|one state|leader",
    ),
    PlantedFault(
        "3", "cuts matching entries", REAL.replace(replica=stock.CutsMatchingEntries), 10, "acknowledged entries stay"
    ),
    PlantedFault(
        "3b",
        "drops the tail at a snapshot",
        REAL.replace(replica=stock.DropsTailAtSnapshot),
        60,
        "acknowledged entries stay",
        profiles.lagging_followers,
    ),
    PlantedFault("4", "continues after a failure", REAL.replace(replica=stock.GoesOnAfterFailure), 40, "one state"),
    PlantedFault(
        "5", "accepts every key", REAL.replace(transport=broken.AcceptsEveryKey), 40, "majority|log|one", start=9
    ),
    PlantedFault(
        "5",
        "accepts every envelope",
        REAL.replace(transport=broken.AcceptsEveryEnvelope),
        20,
        "majority|log|one|flood",
        profiles.unknown_peers,
    ),
    PlantedFault(
        "6",
        "endless resets",
        REAL.replace(replica=stock.StockRow6),
        200,
        "one state|progress",
        profiles.small_messages,
    ),
    PlantedFault(
        "7",
        "a journal with rare syncs",
        REAL.replace(disk_journal=broken.JournalWithRareSyncs),
        40,
        "acknowledged entries stay|durable acknowledgement|a majority commits",
    ),
    PlantedFault(
        "7",
        "a journal without checksums",
        REAL.replace(disk_journal=broken.JournalWithoutChecksums),
        20,
        "log agreement|durable acknowledgement|stopped|exception",
        profiles.rotting_disks,
    ),
    PlantedFault(
        "8",
        "a journal and no snapshots",
        REAL.replace(replica=stock.AllowsPersistentJournal, keeps_snapshots=False),
        40,
        "refuses an undamaged disk",
    ),
    PlantedFault(
        "9",
        "counts stale acknowledgements",
        REAL.replace(replica=stock.CountsStaleAcknowledgements),
        20,
        "a majority commits",
        profiles.late_acknowledgements,
        start=100,
    ),
    PlantedFault(
        "10",
        "counts every vote",
        REAL.replace(replica=stock.CountsEveryVote, timing=_SIMULTANEOUS_ELECTIONS),
        60,
        "a majority elects",
        profiles.split_votes,
    ),
    PlantedFault(
        "11", "forwards to the leader", REAL.replace(node=ForwardsToLeader), 40, "refused, never|neither answered"
    ),
    PlantedFault(
        "12", "floods while a snapshot is not ready", REAL.replace(replica=stock.FloodsWhileNotReady), 40, "flood"
    ),
    PlantedFault(
        "13",
        "pickles the state on the loop",
        REAL.replace(snapshot_seconds=stock.pickled),
        20,
        "for a snapshot",
        profiles.large_state,
    ),
    PlantedFault("14", "splits large entries", REAL.replace(replica=stock.SplitsLargeEntries), 40, "stopped"),
    PlantedFault(
        "15",
        "leads without a majority",
        REAL.replace(replica=stock.LeadsOnAlone, timing=_LONG_FALLBACK),
        60,
        "steps down",
    ),
    PlantedFault(
        "16",
        "acknowledges a failed snapshot",
        REAL.replace(replica=stock.AcknowledgesFailedSnapshots),
        100,
        "durable acknowledgement",
    ),
    PlantedFault("17", "numbers methods", REAL.replace(formats=stock.NumbersMethods), 40, "one state|stopped", start=5),
    PlantedFault("18", "pickles commands", REAL.replace(replica=stock.Pickles), 5, "entry size"),
    PlantedFault(
        "",
        "changes before its own commit",
        REAL.replace(replica=broken.ChangesBeforeOwnCommit),
        20,
        "majority|membership agreement|log agreement",
        profiles.concurrent_changes,
    ),
    PlantedFault("", "a diverging engine", REAL.replace(state=broken.Diverges), 20, "one state|engine"),
    PlantedFault(
        "", "details are mixed up", REAL.replace(order_entry=broken.MixesDetails), 20, "only sent commands|one state"
    ),
    PlantedFault("", "repeats are applied", REAL.replace(state=broken.AppliesRepeats), 20, "exactly once"),
    PlantedFault(
        "",
        "answers before commit",
        REAL.replace(order_entry=broken.AnswersBeforeCommit),
        5,
        "is in no log",
    ),
    PlantedFault(
        "",
        "loses its vote and its incarnation",
        REAL.replace(meta=broken.LosesVotesAndIncarnation, timing=_SIMULTANEOUS_ELECTIONS),
        150,
        "one vote|one leader",
        profiles.contested_elections,
    ),
    PlantedFault(
        "",
        "loses its term",
        REAL.replace(meta=broken.LosesTerms),
        60,
        "refuses an undamaged disk|one vote|one leader",
    ),
    PlantedFault(
        "",
        "sends before it syncs",
        REAL.replace(replica=broken.SendsBeforeSync),
        60,
        "acknowledged entries stay|one vote|one state|durable acknowledgement|a majority commits",
    ),
    PlantedFault(
        "",
        "a leader counts itself before it syncs",
        REAL.replace(replica=broken.CountsItselfBeforeSync),
        20,
        "a majority commits",
    ),
    PlantedFault(
        "",
        "two voters at once",
        REAL.replace(replica=broken.AddsVotersAtOnce),
        20,
        "a majority|membership agreement|log agreement",
        # Two new nodes at once are not enough: each counts only after messages from most of the others.
        profiles.concurrent_changes,
    ),
    PlantedFault(
        "",
        "loses its membership",
        REAL.replace(replica=broken.IgnoresSnapshotMembership, meta=broken.LosesMembership),
        20,
        "one state|membership agreement|a majority",
        profiles.changing_members,
    ),
    PlantedFault(
        "",
        "counts learners",
        REAL.replace(replica=broken.CountsLearners),
        20,
        "a majority commits|progress",
        profiles.changing_members,
    ),
    PlantedFault(
        "",
        "votes with an empty directory",
        REAL.replace(replica=broken.VotesWithEmptyLog),
        40,
        "one state|log agreement|a majority|acknowledged entries stay|one leader|progress",
        profiles.lost_directories,
        start=50,
    ),
    PlantedFault(
        "",
        "stops before its removal is committed",
        REAL.replace(replica=broken.StopsBeforeRemovalIsCommitted),
        10,
        "members stay",
        profiles.leaving_members,
    ),
    PlantedFault(
        "",
        "keeps the log for old transfers",
        REAL.replace(replica=broken.KeepsLogForOldTransfers),
        20,
        "log length",
        profiles.slow_transfers,
        20,
    ),
    PlantedFault(
        "",
        "a leader stamps its own clock",
        REAL.replace(node=broken.StampsOwnClock),
        10,
        "bounded time|time advances",
        profiles.jumping_clocks_only,
    ),
    PlantedFault(
        "",
        "a clock that is behind stops the time",
        REAL.replace(node=broken.StampsNoLaterThanMajority, replica=broken.IgnoresClocks),
        10,
        "time advances",
        profiles.jumping_clocks,
        start=12,
    ),
    PlantedFault(
        "",
        "leads with a wrong clock",
        REAL.replace(replica=broken.IgnoresClocks),
        10,
        "right clocks lead",
        profiles.jumping_clocks,
    ),
    PlantedFault(
        "",
        "waits for a right clock that cannot win",
        REAL.replace(replica=broken.WaitsForRightClock),
        40,
        "progress",
        profiles.jumping_clocks,
    ),
]

NOT_SHOWN = {
    "19": "compressing and copying cost processor time, which a simulated node does not spend on messages; a test in "
    "tests/consensus checks that nothing is compressed, and `smrx bench cluster` measures the cost of messages",
}

#: Profiles by name: a focus made by with_fields() has none.
READ_FAULTS = [
    PlantedFault(
        "",
        name,
        REAL.replace(replica=replica, node=node),
        10,
        "linearizable reads|real-time order",
        focus,
        start,
        reads=True,
    )
    for name, replica, node, focus, start in (
        (
            "confirms reads without a round",
            broken.ReadsWithoutConfirmation,
            broken.AnswersReadsAtOnce,
            profiles.reads_of_paused_leaders,
            30,
        ),
        (
            "confirms reads by earlier rounds",
            broken.ReadsWithEarlierRounds,
            broken.AnswersReadsAtOnce,
            profiles.reads_of_paused_leaders,
            30,
        ),
        (
            "reads before its own term's commit",
            broken.ReadsBeforeOwnCommit,
            SimulatedNode,
            profiles.reads_of_new_leaders,
            90,
        ),
    )
]
PLANTED_FAULTS += READ_FAULTS

FOCUSES = {
    "with_reads": profiles.with_reads,
    "reads_of_new_leaders": profiles.reads_of_new_leaders,
    "reads_of_paused_leaders": profiles.reads_of_paused_leaders,
    "small_messages": profiles.small_messages,
    "lagging_followers": profiles.lagging_followers,
    "slow_transfers": profiles.slow_transfers,
    "rotting_disks": profiles.rotting_disks,
    "contested_elections": profiles.contested_elections,
    "changing_members": profiles.changing_members,
    "leaving_members": profiles.leaving_members,
    "unknown_peers": profiles.unknown_peers,
    "large_state": profiles.large_state,
    "late_acknowledgements": profiles.late_acknowledgements,
    "concurrent_changes": profiles.concurrent_changes,
    "two_new_nodes": profiles.two_new_nodes,
    "split_votes": profiles.split_votes,
    "lost_directories": profiles.lost_directories,
    "jumping_clocks": profiles.jumping_clocks,
    "jumping_clocks_only": profiles.jumping_clocks_only,
}


def unbroken(components: ClusterComponents) -> ClusterComponents:
    """Return components without the fault, with the same timing unless a node refuses it."""
    timing = components.timing
    is_accepted = timing is not None and timing.leader_fallback_ms < timing.election_min_ms
    return REAL.replace(timing=timing) if is_accepted else REAL


@pytest.mark.parametrize("fault", PLANTED_FAULTS, ids=lambda fault: fault.name)
def test_planted_fault_is_found(fault: PlantedFault) -> None:
    # Reads change the rest of a run: only the faults that concern them are looked for with reads.
    focus = fault.focus if fault.reads else profiles.without_reads(fault.focus)
    for seed in range(fault.start, fault.start + fault.seeds):
        result = simulate(seed, fault.components, focus)
        if result.failure is not None:
            assert re.search(fault.failure, result.failure), result.failure
            assert simulate(seed, unbroken(fault.components), focus).failure is None
            return
    raise AssertionError(f"expected a failure of {fault.name!r} within {fault.seeds} seeds")


@pytest.mark.parametrize("name", FOCUSES)
def test_profile_holds_without_a_planted_fault(name: str) -> None:
    for seed in range(4):
        assert simulate(seed, focus=FOCUSES[name]).failure is None, seed


def test_simultaneous_elections_hold_without_a_planted_fault() -> None:
    for seed in range(8):
        result = simulate(seed, REAL.replace(timing=_SIMULTANEOUS_ELECTIONS), profiles.contested_elections)
        assert result.failure is None, seed


def test_every_row_of_the_table_is_planted_or_explained() -> None:
    rows = set(re.findall(r"^\| (\d+b?) \|", README.read_text(encoding="utf-8"), re.MULTILINE))
    planted = {fault.row for fault in PLANTED_FAULTS} - {""}
    assert not planted & set(NOT_SHOWN)
    assert rows <= planted | set(NOT_SHOWN)
