"""The checker is checked: what is broken on purpose is found within a stated number of seeds.

FOUND has a line for each fault of the table in smrx/consensus/README.md that a simulation can show, and for more that
are no library's: a seed found it when it was written down within the number given, from seed 0 or `start` on. NOT_SHOWN
says of every other row why it cannot come to light here; tests/consensus has a test of each.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from smrx.config import Timing
from smrx.sim import REAL, Parts, simulate
from smrx.sim.profile import CHANGES, LARGE_STATE_BYTES, Profile
from tests.consensus import stock
from tests.sim import broken
from tests.sim.forwarding import ForwardsToLeader

Focus = Callable[[Profile], Profile]

README = Path(__file__).resolve().parents[2] / "smrx/consensus/README.md"


def as_drawn(drawn: Profile) -> Profile:
    return drawn


def small_messages(drawn: Profile) -> Profile:
    return replace(drawn, batch_bytes=100)


def lagging_followers(drawn: Profile) -> Profile:
    """A log that is compacted all the time, and followers whose word of what is committed comes late."""
    return replace(
        drawn,
        nodes=5,
        durable=False,
        early=False,
        delay=(0.0005, 0.1),
        loss=0.01,
        traders=3,
        fault_seconds=0.08,
        order_seconds=0.05,
        compaction_entries=4,
        batch_bytes=1 << 20,
        faults=frozenset({"compact", "isolate the leader", "break", "stall", "lose"}),
    )


def slow_transfers(drawn: Profile) -> Profile:
    """Snapshots in many pieces, to nodes that die, from leaders that go."""
    faults = lagging_followers(drawn).faults | {"isolate", "crash", "hand over"}
    return replace(lagging_followers(drawn), order_seconds=0.02, chunk_bytes=1500, faults=faults)


def leaving_members(drawn: Profile) -> Profile:
    """Nodes that are told to go, while old words of leaders come again."""
    return replace(
        drawn,
        nodes=5,
        durable=True,
        early=False,
        delay=(0.001, 0.02),
        repeats=0.2,
        fault_seconds=0.08,
        order_seconds=0.02,
        faults=frozenset({"leave", "echo", "repeat", "overtake", "isolate the leader"}),
    )


def contested_elections(drawn: Profile) -> Profile:
    """Nodes that stand at nearly the same time, messages that take long, voters that die."""
    return replace(
        drawn,
        nodes=5,
        durable=True,
        early=True,
        delay=(0.0005, 0.1),
        fault_seconds=0.08,
        faults=frozenset({"crash the voter", "isolate the leader"}),
    )


def changing_members(drawn: Profile) -> Profile:
    """Nodes in memory that come, go and are replaced, with a log that is compacted all the time."""
    return replace(
        drawn,
        nodes=3,
        spares=2,
        durable=False,
        early=False,
        fault_seconds=0.08,
        compaction_entries=4,
        faults=frozenset({*CHANGES, "isolate", "isolate the leader", "split", "strand the leader", "crash", "compact"}),
    )


def rotting_disks(drawn: Profile) -> Profile:
    """Bits that change in long logs."""
    return replace(
        drawn,
        nodes=3,
        durable=True,
        fault_seconds=0.2,
        compaction_entries=1_000,
        snapshot_commands=10_000,
        faults=frozenset({"rot", "crash"}),
    )


def split_votes(drawn: Profile) -> Profile:
    """Nodes that stand at nearly the same time, and messages that come again."""
    return replace(
        contested_elections(drawn), durable=True, repeats=0.2, faults=frozenset({"repeat", "isolate the leader"})
    )


def lost_directories(drawn: Profile) -> Profile:
    """Nodes that begin again with an empty directory, under their old number, and parts that do not hear each other."""
    return replace(
        drawn,
        nodes=3,
        spares=0,
        durable=True,
        early=False,
        fault_seconds=0.08,
        order_seconds=0.05,
        faults=frozenset({"lose a directory", "isolate", "isolate the leader", "crash the leader"}),
    )


def some_mishap(name: str) -> Focus:
    """A small storm, and one kind of mishap as often as there may be."""

    def focus(drawn: Profile) -> Profile:
        return replace(
            drawn,
            # Two of five may have what nobody else has; of four voters two are as many as of three.
            nodes={"late acknowledgements": 5, "hasty changes": 4}.get(name, 3),
            spares=2 if name == "two newcomers" else 0,
            durable=True,
            early=False,
            storm_seconds=4.0,
            order_seconds=0.05,
            faults=frozenset({name, "wall clock"}),
        )

    focus.__name__ = name
    return focus


strangers = some_mishap("stranger")
late_acknowledgements = some_mishap("late acknowledgements")
hasty_changes = some_mishap("hasty changes")
two_newcomers = some_mishap("two newcomers")


def large_state(drawn: Profile) -> Profile:
    """A state that takes time to copy, and no snapshot of it before everything else is done."""
    return replace(
        some_mishap("large state")(drawn),
        state_bytes=LARGE_STATE_BYTES,
        compaction_entries=10_000,
        snapshot_commands=10_000,
    )


_LEADS_LONG = Timing(heartbeat_ms=50, election_min_ms=600, election_max_ms=1200, leader_fallback_ms=30_000)
_STANDS_TOGETHER = Timing(heartbeat_ms=50, election_min_ms=600, election_max_ms=640, leader_fallback_ms=450)


class Fault(NamedTuple):
    """A broken part, the seeds within which it is found, and what the verdict speaks of."""

    row: str
    name: str
    parts: Parts
    seeds: int
    says: str
    focus: Focus = as_drawn
    #: The first of them.
    start: int = 0


FOUND = [
    Fault(
        "1",
        "trusts any commit index",
        REAL.but(replica=stock.TrustsAnyCommitIndex),
        60,
        "log agreement|majority",
        start=60,
    ),
    Fault(
        "2", "votes without its log", REAL.but(replica=stock.VotesWithoutItsLog), 40, "log agreement|one state|leader"
    ),
    Fault("3", "cuts matching entries", REAL.but(replica=stock.CutsMatchingEntries), 10, "acknowledged stays"),
    Fault(
        "3b",
        "drops the tail at a snapshot",
        REAL.but(replica=stock.DropsTailAtSnapshot),
        60,
        "acknowledged stays",
        lagging_followers,
    ),
    Fault("4", "goes on after a failure", REAL.but(replica=stock.GoesOnAfterFailure), 40, "one state"),
    Fault("5", "lets anybody in", REAL.but(transport=broken.LetsAnybodyIn), 40, "majority|log|one"),
    Fault(
        "5",
        "believes every envelope",
        REAL.but(transport=broken.BelievesEveryEnvelope),
        20,
        "majority|log|one|flood",
        strangers,
    ),
    Fault(
        "6", "two resets chase each other", REAL.but(replica=stock.StockRow6), 200, "one state|progress", small_messages
    ),
    Fault(
        "7",
        "a journal that does not sync",
        REAL.but(disk_journal=broken.JournalThatDoesNotSync),
        40,
        "acknowledged stays|honest word|a majority commits",
    ),
    Fault(
        "7",
        "a journal without checksums",
        REAL.but(disk_journal=broken.JournalThatBelievesEverything),
        20,
        "log agreement|honest word|stopped|exception",
        rotting_disks,
    ),
    Fault(
        "8",
        "a journal and no snapshots",
        REAL.but(replica=stock.AllowsPersistentJournal, keeps_snapshots=False),
        40,
        "refuses a disk",
    ),
    Fault(
        "9",
        "counts stale acknowledgements",
        REAL.but(replica=stock.CountsStaleAcknowledgements),
        20,
        "a majority commits",
        late_acknowledgements,
    ),
    Fault(
        "10",
        "counts every vote",
        REAL.but(replica=stock.CountsEveryVote, timing=_STANDS_TOGETHER),
        60,
        "a majority elects",
        split_votes,
    ),
    Fault("11", "forwards to the leader", REAL.but(member=ForwardsToLeader), 40, "refused, never|neither answered"),
    Fault("12", "floods while a snapshot is not ready", REAL.but(replica=stock.FloodsWhileNotReady), 40, "flood"),
    Fault(
        "13",
        "pickles the state on the loop",
        REAL.but(snapshot_seconds=stock.pickled),
        20,
        "for a snapshot",
        large_state,
    ),
    Fault("14", "splits large entries", REAL.but(replica=stock.SplitsLargeEntries), 40, "stopped"),
    Fault("15", "leads on alone", REAL.but(replica=stock.LeadsOnAlone, timing=_LEADS_LONG), 60, "steps down"),
    Fault(
        "16", "acknowledges a failed snapshot", REAL.but(replica=stock.AcknowledgesFailedSnapshots), 100, "honest word"
    ),
    Fault("17", "numbers methods", REAL.but(formats=stock.NumbersMethods), 40, "one state|stopped"),
    Fault("18", "pickles commands", REAL.but(replica=stock.Pickles), 5, "a small log"),
    Fault(
        "",
        "changes too early",
        REAL.but(replica=broken.ChangesTooEarly),
        20,
        "majority|one membership|log agreement",
        hasty_changes,
    ),
    Fault("", "a diverging engine", REAL.but(machine=broken.Diverges), 20, "one state|engine"),
    Fault("", "repeats are applied", REAL.but(machine=broken.AppliesRepeats), 20, "exactly once"),
    Fault("", "answers before commit", REAL.but(order_entry=broken.AnswersBeforeCommit), 5, "stands in no log"),
    Fault(
        "",
        "forgets its vote and its lives",
        REAL.but(meta=broken.ForgetsVotesAndLives, timing=_STANDS_TOGETHER),
        150,
        "one vote|one leader",
        contested_elections,
    ),
    Fault(
        "",
        "forgets its term at a restart",
        REAL.but(meta=broken.ForgetsTerms),
        60,
        "refuses a disk|one vote|one leader",
    ),
    Fault(
        "",
        "speaks before it writes",
        REAL.but(replica=broken.SpeaksBeforeWriting),
        60,
        "acknowledged stays|one vote|one state|honest word|a majority commits",
    ),
    Fault(
        "",
        "a leader counts itself before it writes",
        REAL.but(replica=broken.CountsItselfBeforeWriting),
        20,
        "a majority commits",
    ),
    Fault(
        "",
        "two voters at once",
        REAL.but(replica=broken.TwoVotersAtOnce),
        20,
        "a majority|one membership|log agreement",
        # Two newcomers at once are not enough: each counts only once it has heard most of the others.
        hasty_changes,
    ),
    Fault(
        "",
        "forgets its members",
        REAL.but(replica=broken.TakesNoMembersFromSnapshots, meta=broken.ForgetsMembers),
        20,
        "one state|one membership|a majority",
        changing_members,
    ),
    Fault(
        "",
        "counts learners",
        REAL.but(replica=broken.CountsLearners),
        20,
        "a majority commits|progress",
        changing_members,
    ),
    Fault(
        "",
        "votes with an empty directory",
        REAL.but(replica=broken.VotesEmpty),
        40,
        "one state|log agreement|a majority|acknowledged stays|one leader|progress",
        lost_directories,
    ),
    Fault("", "ends too early", REAL.but(replica=broken.EndsTooEarly), 10, "members stay", leaving_members),
    Fault(
        "",
        "keeps the log for the dead",
        REAL.but(replica=broken.KeepsForTheDead),
        20,
        "a bounded log",
        slow_transfers,
        20,
    ),
]

NOT_SHOWN = {
    "19": "compressing and copying cost time of the processor, and a simulated node takes none for a message; that "
    "nothing is compressed says a test in tests/consensus, and what messages cost shows `smrx bench cluster`",
}


def unbroken(parts: Parts) -> Parts:
    """Nodes without the fault, with the same timing, where that is none that a node refuses."""
    timing = parts.timing
    usable = timing is not None and timing.leader_fallback_ms < timing.election_min_ms
    return REAL.but(timing=timing) if usable else REAL


@pytest.mark.parametrize("fault", FOUND, ids=lambda fault: fault.name)
def test_what_is_broken_is_found(fault: Fault) -> None:
    for seed in range(fault.start, fault.start + fault.seeds):
        verdict = simulate(seed, fault.parts, fault.focus)
        if verdict.failure is not None:
            assert re.search(fault.says, verdict.failure), verdict.failure
            assert simulate(seed, unbroken(fault.parts), fault.focus).failure is None
            return
    raise AssertionError(f"expected {fault.name!r} to be found within {fault.seeds} seeds")


def test_the_same_seeds_hold_without_the_fault() -> None:
    for focus in (
        small_messages, lagging_followers, slow_transfers, rotting_disks, contested_elections, changing_members,
        leaving_members, strangers, large_state, late_acknowledgements, hasty_changes, two_newcomers, split_votes,
        lost_directories,
    ):  # fmt: skip
        for seed in range(4):
            assert simulate(seed, focus=focus).failure is None, (focus.__name__, seed)
    for seed in range(8):
        assert simulate(seed, REAL.but(timing=_STANDS_TOGETHER), contested_elections).failure is None, seed


def test_every_row_is_found_or_explained() -> None:
    rows = set(re.findall(r"^\| (\d+b?) \|", README.read_text(encoding="utf-8"), re.MULTILINE))
    found = {fault.row for fault in FOUND} - {""}
    assert not found & set(NOT_SHOWN)
    assert rows <= found | set(NOT_SHOWN)
