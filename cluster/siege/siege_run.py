"""Run attacks against clusters, measure an honest client beside each, and return what was measured.

Attacks that need the same kind of cluster share one. A cluster that broke a bound is replaced, so that one attack does
not show in the figures of the next. The honest client is measured alone right before each attack, on the same cluster.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

from cluster.siege import siege_market
from cluster.siege.attack_process import AttackProcess
from cluster.siege.attack_table import ATTACKS, FEW_ORDERS, Attack
from cluster.siege.attack_target import AttackReport, Target
from cluster.siege.honest_client import HonestClient
from cluster.siege.node_watch import NodeWatch, sample
from cluster.siege.siege_gateway import MAIN, SiegeGateway, with_gateways
from cluster.siege.siege_verdict import (
    GATEWAY,
    Bounds,
    Latencies,
    Measurement,
    Memory,
    process_name,
    violations,
)
from smrx.client import Client
from smrx.config import Limits, Timing, dump
from smrx.local import SMRX, LocalCluster, LocalClusterError
from smrx.wire.admin import NodeStatus

#: Small, so that what grows during an attack is not the history of the exchange: 8 MiB of events, 16 MiB of log.
_LIMITS: Final = Limits(event_ring=1 << 16, compaction_entries=16)
_DISCONNECT_MS: Final = 1_500
_SETUP_SECONDS: Final = 120.0
_POLL_SECONDS: Final = 0.1
#: An attack ends when a node takes this much more than before: the bound is broken, and other processes need memory.
_LIMIT_BYTES: Final = 1 << 30
_WARM_UP_ORDERS: Final = 20


@dataclass(frozen=True)
class Plan:
    """How long and how hard to attack."""

    #: Seconds of each attack, and of the honest client alone before it.
    seconds: float = 10.0
    alone_seconds: float = 5.0
    #: Orders that rest in a big market.
    big_market: int = 100_000
    #: 1 sends as much as the descriptions say.
    scale: float = 1.0
    #: Seconds between two orders of the honest client.
    interval_s: float = 0.01
    #: How long the nodes may take after an attack to answer orders, to free memory and to reach one state.
    settle_seconds: float = 20.0
    #: For a machine that does other work: the bounds of time are relaxed, and elections wait longer.
    is_loaded: bool = False

    def bounds(self, attack: Attack) -> Bounds:
        """Return the bounds of an attack in this run; fewer connections may leave less unread."""
        unread_mib = max(1, int(attack.bounds.unread_answers_mib * self.scale))
        bounds = replace(attack.bounds, unread_answers_mib=unread_mib)
        return replace(bounds, p99_ratio=50.0, p99_floor_ms=5_000.0) if self.is_loaded else bounds

    def timing(self) -> Timing:
        """Return the timing of the cluster."""
        if not self.is_loaded:
            return Timing(disconnect_ms=_DISCONNECT_MS)
        return Timing(
            election_min_ms=3_000,
            election_max_ms=5_000,
            leader_fallback_ms=2_500,
            max_clock_skew_ms=3_000,
            disconnect_ms=_DISCONNECT_MS,
        )


class _Kind(NamedTuple):
    """The kinds of clusters: keys or none, a gateway or none, and how many orders rest."""

    keyed: bool
    gateway: bool
    resting: int


class Siege:
    """The attacks of one run. `program`: what a node's process runs; a test passes a node without a bound."""

    def __init__(
        self,
        plan: Plan,
        *,
        program: Sequence[str] = SMRX,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._plan = plan
        self._program = program
        self._report = report

    def run(self, names: Iterable[str]) -> list[Measurement]:
        """Run the attacks with these names, those on one kind of cluster together; return one measurement each."""
        chosen = sorted(names, key=lambda name: (self._kind(ATTACKS[name]), list(ATTACKS).index(name)))
        found: list[Measurement] = []
        at = 0
        while at < len(chosen):
            kind = self._kind(ATTACKS[chosen[at]])
            with _Besieged(self._plan, kind, self._program) as besieged:
                while at < len(chosen) and self._kind(ATTACKS[chosen[at]]) == kind:
                    name = chosen[at]
                    at += 1
                    found.append(self._attack(besieged, name))
                    if found[-1].violations or ATTACKS[name].fresh_after:
                        break
        order = list(ATTACKS)
        return sorted(found, key=lambda measurement: order.index(measurement.attack))

    def _kind(self, attack: Attack) -> _Kind:
        return _Kind(attack.keyed, attack.gateway, self._plan.big_market if attack.big_market else FEW_ORDERS)

    def _attack(self, besieged: "_Besieged", name: str) -> Measurement:
        attack = ATTACKS[name]
        measured = besieged.measure(name, attack)
        measured.violations = violations(measured, self._plan.bounds(attack))
        verdict = "; ".join(measured.violations) or "ok"
        self._report(
            f"{name}: p99 {measured.alone.p99_ms:.1f} -> {measured.beside.p99_ms:.1f} ms; {measured.note}; {verdict}"
        )
        return measured


class _Besieged:
    """A cluster with its market and the honest client. A context manager, which stops everything."""

    def __init__(self, plan: Plan, kind: _Kind, program: Sequence[str]) -> None:
        self._plan = plan
        self._directory = Path(tempfile.mkdtemp(prefix="smrx-siege-"))
        self._cluster = LocalCluster(
            self._directory, timing=plan.timing(), limits=_LIMITS, program=program, keys=kind.keyed
        )
        if kind.gateway:
            self._cluster.config = with_gateways(self._cluster.config)
            self._cluster.config_path.write_text(dump(self._cluster.config), encoding="utf-8")
        self._program = tuple(program)
        self._gateway: SiegeGateway | None = None
        self._node_ids = [node.id for node in self._cluster.config.nodes]
        self._kind = kind
        self._stack = ExitStack()

    def __enter__(self) -> "_Besieged":
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, self._directory, ignore_errors=True)
            stack.callback(self._cluster.stop)
            self._cluster.start()
            self._cluster.wait_leader(_SETUP_SECONDS)
            with Client(self._cluster.config, timeout=_SETUP_SECONDS) as venue:
                siege_market.set_up(venue, self._kind.resting)
                if self._kind.keyed:
                    siege_market.add_customer_key(venue, self._directory)
            address = None
            if self._kind.gateway:
                address = self._cluster.config.gateway(MAIN).address
                log = self._directory / "gateway.log"
                gateway = SiegeGateway(self._program, self._cluster.config_path, MAIN, log)
                self._gateway = stack.enter_context(gateway)
                gateway.wait_listening(address)
            path, log = self._cluster.config_path, self._directory / "honest.log"
            self._honest = stack.enter_context(HonestClient(path, log, self._plan.interval_s, gateway=address))
            self._wait_for_orders(_WARM_UP_ORDERS, _SETUP_SECONDS)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def measure(self, name: str, attack: Attack) -> Measurement:
        """Measure the honest client alone, then beside the attack, then wait until the nodes have settled."""
        with ExitStack() as stack:
            if attack.with_flow:
                stack.enter_context(self._start("order-flow", 600.0))
                self._wait_for_orders(_WARM_UP_ORDERS, _SETUP_SECONDS)
            alone = self._alone()
            orders_before = self._honest.orders
            statuses = self._statuses()
            pids = self._pids()
            limit = max(sample(pid).resident for pid in pids.values()) + _LIMIT_BYTES
            cut_off: list[int] = []
            with self._start(name, self._plan.seconds) as process:
                started = time.monotonic()

                def too_much(node: int) -> None:
                    cut_off.append(node)
                    process.stop()

                with NodeWatch(pids, limit, too_much) as watch:
                    report = process.report()
                    ended = time.monotonic()
                    # An order that is due during the attack and still unanswered counts, too.
                    self._wait_for_orders(2, self._plan.settle_seconds)
            beside = self._honest.between(started, ended)
            seconds = ended - started
        after = self._settle(watch, attack)
        return self._measurement(name, seconds, alone, beside, watch, report, statuses, after, orders_before, cut_off)

    def _pids(self) -> dict[int, int]:
        """Return the ids of the running processes, by their node, GATEWAY for the gateway."""
        pids = {node: self._cluster.process(node).pid for node in self._node_ids if self._cluster.running(node)}
        if self._gateway is not None and self._gateway.is_running:
            pids[GATEWAY] = self._gateway.pid
        return pids

    def _start(self, name: str, seconds: float) -> AttackProcess:
        leader = self._cluster.wait_leader(_SETUP_SECONDS)
        target = Target(str(self._cluster.config_path), leader, seconds, self._plan.scale, self._program)
        process = AttackProcess(name, target, self._directory / f"{name}.log")
        process.wait_ready()
        return process

    def _alone(self) -> Latencies:
        started = time.monotonic()
        time.sleep(self._plan.alone_seconds)
        return self._honest.between(started, time.monotonic())

    def _wait_for_orders(self, count: int, seconds: float) -> None:
        """Wait until the honest client has got so many more answers, or the time is over."""
        wanted = self._honest.orders + count
        deadline = time.monotonic() + seconds
        while self._honest.orders < wanted and time.monotonic() < deadline:
            failure = self._honest.failure
            if failure is not None:
                raise LocalClusterError(failure)
            time.sleep(0.01)

    def _statuses(self) -> dict[int, NodeStatus]:
        """Return the status of all running nodes, or of those that answer within the settling time."""
        running = [node for node in self._node_ids if self._cluster.running(node)]
        deadline = time.monotonic() + self._plan.settle_seconds
        while len(found := self._cluster.statuses()) < len(running) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return found

    def _settle(self, watch: NodeWatch, attack: Attack) -> dict[int, int]:
        """Wait until the memory of every node is below the bound again; return the resident bytes of each."""
        deadline = time.monotonic() + self._plan.settle_seconds
        most = self._plan.bounds(attack).memory_after_mib << 20
        while True:
            pids = self._pids()
            after = {node: sample(pids.get(node, 0)).resident for node in watch.before}
            grown = max(after[node] - watch.before[node].resident for node in after)
            if grown <= most or time.monotonic() > deadline:
                return after
            time.sleep(_POLL_SECONDS)

    def _measurement(
        self,
        name: str,
        seconds: float,
        alone: Latencies,
        beside: Latencies,
        watch: NodeWatch,
        report: AttackReport,
        before: dict[int, NodeStatus],
        after_bytes: dict[int, int],
        orders_before: int,
        cut_off: list[int],
    ) -> Measurement:
        ended = [node for node in watch.before if node not in self._pids()]
        after = self._statuses()
        # Those up to now: the log has their entries, too.
        orders = self._honest.orders - orders_before
        worst = max(watch.before, key=lambda node: watch.most[node].resident - watch.before[node].resident)
        memory = Memory(
            worst,
            watch.before[worst].resident,
            watch.most[worst].resident,
            after_bytes[worst],
            max(watch.most[node].threads - watch.before[node].threads for node in watch.before),
        )
        note = report.note or f"{report.sent} sent, {report.received} received"
        if cut_off:
            note += f"; ended early, because {process_name(cut_off[0])} took too much memory"
        return Measurement(
            name,
            seconds,
            alone,
            beside,
            memory,
            leader_changes=_newest(after, "term") - _newest(before, "term"),
            unread_answer_bytes=_most_unread(before, after),
            log_entries=max(0, _newest(after, "last_log_index") - _newest(before, "last_log_index") - orders),
            harm=report.harm,
            ended_nodes=ended,
            states_differ=not self._reach_one_state(),
            note=note,
        )

    def _reach_one_state(self) -> bool:
        """Wait until all running nodes agree on the state at one command; return whether they do."""
        running = [node for node in self._node_ids if self._cluster.running(node)]
        deadline = time.monotonic() + self._plan.settle_seconds
        while time.monotonic() < deadline:
            found = self._cluster.statuses().values()
            if any(status.fenced or status.diverged for status in found):
                return False
            if len(found) == len(running) and all(status.role in ("leader", "follower") for status in found):
                return True
            time.sleep(_POLL_SECONDS)
        return False


def _newest(statuses: dict[int, NodeStatus], field: str) -> int:
    return max((int(getattr(status, field)) for status in statuses.values()), default=0)


def _most_unread(before: dict[int, NodeStatus], after: dict[int, NodeStatus]) -> int:
    """Return the most bytes of unread answers that a node had during an attack, if they are more than ever before."""
    most = {node: status.most_unread_answer_bytes for node, status in after.items()}
    return max(
        (most[node] for node in most if node in before and most[node] > before[node].most_unread_answer_bytes),
        default=0,
    )
