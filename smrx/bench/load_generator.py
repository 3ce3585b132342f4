"""Offer a load to a cluster over many connections, with the compiled kernel; follow the leader if it changes.

The process that calls measure() is the generator; nothing else runs in it meanwhile. Whether it kept up is measured,
too: its processor time, how late it sent what was due, and how long an answer may have waited in it.

Open loop: orders are due at fixed times, whatever the cluster does, and a latency counts from the time at which the
order was due. An order whose connection has too much under way is sent later and still counts from then; one that was
not sent at all counts with the time until the end. So a pause of the cluster is not hidden by orders that were not sent
(coordinated omission). Closed loop: a connection sends the next order when an answer arrives.
"""

import time
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.bench import load_connections, load_histogram, load_kernel
from smrx.bench.bench_error import BenchError, LeaderChanged
from smrx.bench.load_connections import Links
from smrx.bench.load_flow import Load
from smrx.bench.load_kernel import Counts, Plan
from smrx.bench.load_protocols import Protocol
from smrx.links.bulk_links import event_layout

#: How often the leader may change while sessions are opened.
_LEADERS_TRIED: Final = 5
_SECOND_NS: Final = 1_000_000_000
_SLICE_NS: Final = 50_000_000
BIN_NS: Final = 100_000_000
#: How long the last answers may take, and an election.
_DRAIN_S: Final = 20.0
#: A generator that uses more than this of a core may be what limits a closed loop.
_BUSY_SHARE: Final = 0.9
#: Orders that leave so late, and later than this share of the latency, distort an open loop.
_LAG_NS: Final = 500_000
_LAG_SHARE: Final = 0.25

#: Returns the address to connect to, of the leader's order entry or of a gateway; raises BenchError if there is none.
FindLeader = Callable[[], str]
#: Called between slices with the seconds since the start of the warm-up.
OnSlice = Callable[[float], None]


class Shape(NamedTuple):
    """How the load is offered."""

    in_flight: int = 1  #: frames of a connection that may be under way
    frame_commands: int = 1
    rate: float | None = None  #: commands a second of all connections together; None is a closed loop
    seconds: float = 5.0
    warm_up_s: float = 1.0


class Measured(NamedTuple):
    """What was measured. Counts of durations are as in load_histogram.py."""

    acknowledged: int  #: commands answered in the measured time
    seconds: float
    rejected: int  #: outcomes that are rejections, of the whole run
    latency: NDArray[np.int64]
    lag: NDArray[np.int64]
    turns: NDArray[np.int64]
    answered: NDArray[np.int64]  #: commands answered in each BIN_NS since the start of the warm-up
    slowest_ns: NDArray[np.int64]  #: the longest latency of those
    cpu_s: float  #: processor time of the generator in the measured time
    unsent: int  #: commands that were due and not sent, because too much was under way
    reconnects: int
    limited: str | None  #: why the generator may be what was measured; None if it kept up


def measure(
    load: Load,
    shape: Shape,
    find_leader: FindLeader,
    protocol: Protocol,
    *,
    first_session: int = 1,
    on_slice: OnSlice = lambda _: None,
) -> Measured:
    """Open the connections and their sessions, offer the load, wait for the last answer. Raises BenchError."""
    links = Links(
        load.accounts,
        protocol,
        first_session=first_session,
        frame_commands=shape.frame_commands,
        window=shape.in_flight,
    )
    try:
        _open(links, load, find_leader)
        links.start()
        return _Run(links, load, shape, find_leader, protocol, on_slice).run()
    finally:
        links.close()


def _open(links: Links, load: Load, find_leader: FindLeader) -> None:
    """Open connections and sessions at the leader, again if it changes meanwhile. Raises BenchError."""
    for _ in range(_LEADERS_TRIED):
        links.connect(find_leader())
        try:
            links.open_sessions(load.before)
        except LeaderChanged:
            continue
        return
    raise BenchError(f"the leader changed {_LEADERS_TRIED} times while sessions were opened")


class _Run:
    def __init__(
        self,
        links: Links,
        load: Load,
        shape: Shape,
        find_leader: FindLeader,
        protocol: Protocol,
        on_slice: OnSlice,
    ) -> None:
        self._links = links
        self._protocol = protocol
        self._load = load
        self._shape = shape
        self._find_leader = find_leader
        self._on_slice = on_slice
        self._reconnects = 0
        # Compiles, at the first call on a machine.
        self._plan = self._planned(time.monotonic_ns() - _SECOND_NS, 0.0, 0.0)
        self._counts = _new_counts(1)
        self._drive(0)
        self._plan = self._planned(time.monotonic_ns(), shape.warm_up_s, shape.seconds)
        self._counts = _new_counts((self._plan.stop_ns - self._plan.start_ns) // BIN_NS + 1)

    def _planned(self, start_ns: int, warm_up_s: float, seconds: float) -> Plan:
        shape = self._shape
        event_bytes, event_data = event_layout()
        measure_ns = start_ns + int(warm_up_s * _SECOND_NS)
        return Plan(
            protocol=self._protocol.number,
            epoll=self._links.epoll,
            event_bytes=event_bytes,
            event_data=event_data,
            frame_commands=shape.frame_commands,
            window=shape.in_flight,
            interval_ns=0.0 if shape.rate is None else _SECOND_NS * shape.frame_commands / shape.rate,
            start_ns=start_ns,
            measure_ns=measure_ns,
            stop_ns=measure_ns + int(seconds * _SECOND_NS),
            bin_ns=BIN_NS,
        )

    def _drive(self, until_ns: int) -> int:
        links, flow = self._links, self._load.flow
        return int(load_kernel.drive(links.state, flow, self._counts, self._plan, links.connection_of, until_ns))

    def run(self) -> Measured:
        """Drive the connections until everything is answered."""
        plan = self._plan
        self._drive_until(plan.measure_ns)
        cpu_s = time.thread_time()
        self._drive_until(plan.stop_ns)
        cpu_s = time.thread_time() - cpu_s
        ended_ns = min(time.monotonic_ns(), plan.stop_ns)
        unsent = self._count_unsent()
        deadline = plan.stop_ns + int(_DRAIN_S * _SECOND_NS)
        self._drive_until(deadline)
        if self._counts.totals[load_kernel.UNDER_WAY]:
            raise BenchError(f"the cluster did not answer the last orders within {_DRAIN_S:g} s")
        counts = self._counts
        seconds = max(1, ended_ns - plan.measure_ns) / _SECOND_NS
        measured = Measured(
            acknowledged=int(counts.totals[load_kernel.MEASURED]),
            seconds=seconds,
            rejected=int(counts.totals[load_kernel.REJECTED]),
            latency=counts.latency,
            lag=counts.lag,
            turns=counts.turns,
            answered=counts.answered,
            slowest_ns=counts.slowest_ns,
            cpu_s=cpu_s,
            unsent=unsent,
            reconnects=self._reconnects,
            limited=None,
        )
        return measured._replace(limited=_limit(measured, is_open=self._shape.rate is not None))

    def _drive_until(self, end_ns: int) -> None:
        """Drive until a time, or until everything is sent and answered; reconnect if the leader changes."""
        while (now_ns := time.monotonic_ns()) < end_ns and not self._is_done(now_ns):
            reason = self._drive(min(end_ns, now_ns + _SLICE_NS))
            if reason != load_kernel.ENDED:
                self._recover(reason)
            self._on_slice((time.monotonic_ns() - self._plan.start_ns) / _SECOND_NS)

    def _is_done(self, now_ns: int) -> bool:
        if self._counts.totals[load_kernel.UNDER_WAY]:
            return False
        flow = self._load.flow
        last = flow.length * flow.repeats // self._shape.frame_commands
        return now_ns >= self._plan.stop_ns or bool((self._links.state.next_frame >= last).all())

    def _recover(self, reason: int) -> None:
        """Connect to the leader and send what is unanswered again, or raise BenchError."""
        totals = self._counts.totals
        frame = self._counts.fault.tobytes()[: int(totals[load_kernel.FAULT_BYTES])]
        if reason == load_kernel.WRONG:
            raise BenchError(f"connection {totals[load_kernel.FAULT_AT]}: an answer is not that to the first order")
        if reason == load_kernel.REFUSED and not self._protocol.leaves_leader(frame):
            raise BenchError(f"the cluster refused a frame: {self._protocol.fault_text(frame)}")
        self._reconnects += 1
        deadline = time.monotonic() + _DRAIN_S
        while True:
            try:
                self._links.connect(self._find_leader())
                break
            except BenchError:
                if time.monotonic() > deadline:
                    raise
        state = self._links.state
        state.next_frame[:] = state.answered
        totals[load_kernel.UNDER_WAY] = 0
        self._links.start()

    def _count_unsent(self) -> int:
        """Count the orders that were due and not sent with the time that they have waited; return how many."""
        plan, state = self._plan, self._links.state
        if not plan.interval_ns:
            return 0
        count = len(state.sockets)
        frames_due = int((plan.stop_ns - plan.start_ns) / plan.interval_ns)
        numbers = np.arange(frames_due)
        late = numbers[numbers // count >= state.made[numbers % count]]
        waited = plan.stop_ns - plan.start_ns - (late * plan.interval_ns).astype(np.int64)
        load_histogram.add(self._counts.latency, waited[waited <= plan.stop_ns - plan.measure_ns])
        return len(late) * self._shape.frame_commands


def _new_counts(bins: int) -> Counts:
    return Counts(
        latency=load_histogram.new_counts(),
        lag=load_histogram.new_counts(),
        turns=load_histogram.new_counts(),
        answered=np.zeros(bins, np.int64),
        slowest_ns=np.zeros(bins, np.int64),
        totals=np.zeros(load_kernel.TOTALS, np.int64),
        fault=np.zeros(load_connections.SMALLEST_INBOX // 8, np.uint64),
    )


def _limit(measured: Measured, *, is_open: bool) -> str | None:
    """Return why the generator may be what was measured, or None."""
    if is_open:
        lag = load_histogram.at_share(measured.lag, 0.99) or 0
        latency = load_histogram.at_share(measured.latency, 0.99) or 0
        if lag > max(_LAG_NS, _LAG_SHARE * latency):
            return f"1 % of the orders left {lag / 1000:.0f} us late or later"
        return None
    share = measured.cpu_s / measured.seconds
    return f"it used {share:.0%} of a core" if share > _BUSY_SHARE else None
