"""Connect the ledger and the comparison of balances to a run that follows the stream, and summarise the run.

The only module that knows both: follower/ is independent of money, the ledger of sockets and files. Called by the CLI,
the benchmark, and verification from the nodes.
"""

from collections.abc import Sequence

import msgspec

from smrx.config import Config
from smrx.follower.alarms import Alarms
from smrx.follower.interfaces import AskNode
from smrx.follower.runner import Runner
from smrx.follower.settler import Settler, WrapSink
from smrx.settlement.balance_comparison import BalanceComparison
from smrx.settlement.ledger import Ledger
from smrx.settlement.ledger_factory import LedgerFactory
from smrx.sinks.contract import Origin, Sink

#: A run of settlement, and what it writes with.
LedgerRunner = Runner[Ledger]
LedgerSettler = Settler[Ledger]


class Summary(msgspec.Struct, kw_only=True):
    """What a run has proved. Sequences and counts are of events unless said otherwise."""

    origin: Origin | None  #: the state image the books start from; None for event 1
    sequence: int  #: every event up to this one is verified, from event 1 or the one after the origin on
    command_sequence: int
    state_hash: str  #: in hex, after the last command a majority attested
    trades: int  #: settled: match ids up to this one, from 1 or the one after the origin's on
    trades_written: int  #: by this run
    committed: int  #: the last event of the last checkpoint
    checkpoints: int
    attested_by: list[int]
    unverified: int  #: received, and not attested by a majority
    excluded: list[int]  #: nodes that contradicted a majority
    known_sequence: int  #: the newest event that any node announced
    gaps: int
    gaps_healed: int
    retransmitted: int
    duplicates: int  #: events that came again, among them the copies of other nodes
    duplicate_frames: int  #: frames that the same node had published before
    reordered_frames: int  #: frames that came after later ones of the same node
    garbage_frames: int
    balances_compared: int  #: balance digests of nodes that were equal to those of the books
    alarms: int
    accounts: int
    open_orders: int
    supply: dict[str, int]  #: per asset, in minimal units: what all accounts own = deposits less withdrawals
    seconds: float
    events_per_second: float  #: until the last one was settled
    out: list[str]


def make_settler(
    cluster: str, directory: str | None, sinks: Sequence[Sink], wrap: WrapSink = lambda sink: sink
) -> LedgerSettler:
    """Return a settler that keeps a ledger; see Settler."""
    return Settler(cluster, directory, sinks, LedgerFactory(), wrap)


def make_runner(
    config: Config,
    settler: LedgerSettler,
    alarms: Alarms,
    *,
    node_ids: Sequence[int] | None = None,
    ask: AskNode | None = None,
    key: str | None = None,
) -> LedgerRunner:
    """Return a runner that compares balances; see Runner. Without `ask` a difference is not traced to an account."""
    comparison = BalanceComparison(settler.projection, len(config.nodes), alarms, ask)
    return Runner(config, settler, comparison, alarms, node_ids=node_ids, key=key)


def gauges(runner: LedgerRunner) -> dict[str, float]:
    """Return the values of the gauges in settlement_metrics.py."""
    feed, settler = runner.subscriber.feed_stats, runner.settler
    return {
        "sequence": settler.committed.event_sequence if settler.committed else 0,
        "known_sequence": runner.subscriber.sequencer.known,
        "unverified_events": runner.quorum.unverified,
        "trades": settler.projection.trades,
        "events_per_second": runner.rate(),
        "gaps": feed.gaps,
        "gaps_healed": feed.gaps_healed,
        "reordered_frames": runner.subscriber.arrivals.reordered,
        "duplicate_frames": runner.subscriber.arrivals.duplicate,
        "attesting_nodes": len(runner.quorum.attested_by),
        "balances_compared": runner.position_check.compared,
    }


def summarize(runner: LedgerRunner, out: list[str]) -> Summary:
    """Return what the run has proved so far; `out` names the sinks."""
    settler, feed, ledger = runner.settler, runner.subscriber.feed_stats, runner.settler.projection
    return Summary(
        origin=settler.origin,
        sequence=ledger.sequence,
        command_sequence=ledger.command_sequence,
        state_hash=f"{runner.quorum.attested.state_hash:016x}",
        trades=ledger.trades,
        trades_written=ledger.trades - settler.trades_before,
        committed=settler.committed.event_sequence if settler.committed else 0,
        checkpoints=settler.checkpoints,
        attested_by=runner.quorum.attested_by,
        unverified=runner.quorum.unverified,
        excluded=runner.quorum.excluded,
        known_sequence=runner.subscriber.sequencer.known,
        gaps=feed.gaps,
        gaps_healed=feed.gaps_healed,
        retransmitted=runner.subscriber.stats.retransmitted,
        duplicates=feed.duplicates,
        duplicate_frames=runner.subscriber.arrivals.duplicate,
        reordered_frames=runner.subscriber.arrivals.reordered,
        garbage_frames=runner.subscriber.stats.garbage,
        balances_compared=runner.position_check.compared,
        alarms=runner.alarms.count,
        accounts=ledger.accounts,
        open_orders=ledger.open_orders,
        supply=ledger.supply(),
        seconds=round(runner.elapsed_s(), 3),
        events_per_second=round(runner.average_rate(), 1),
        out=out,
    )
