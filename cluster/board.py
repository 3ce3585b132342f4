"""The demo's display: live on a terminal, plain lines in a pipe. Shows what it is told; knows no cluster."""

import time
from types import TracebackType

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

_HAPPENINGS = 9
_PLAIN_SECONDS = 2.0
_STYLES = {"leader": "bold green", "killed": "bold red"}


class NodeRow(msgspec.Struct, frozen=True):
    """One node as it is shown."""

    node_id: int
    role: str
    term: int = 0
    applied: int = 0
    state_hash: int = 0


class Numbers(msgspec.Struct, frozen=True):
    """Everything that changes all the time."""

    nodes: tuple[NodeRow, ...] = ()
    sent: int = 0
    of: int = 0
    per_second: float = 0.0
    trades: int = 0
    settled: int = 0


class Board:
    """Use as a context manager: say() what happened, show() how it stands."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._started = time.monotonic()
        self._happened: list[str] = []
        self._numbers = Numbers()
        self._next_line = 0.0
        # What is shown live goes when the demo ends; what happened is printed and stays.
        self._live = Live(console=self._console, refresh_per_second=8) if self._console.is_terminal else None

    def __enter__(self) -> "Board":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._started

    def say(self, what: str) -> None:
        """Something happened."""
        line = f"[{self.seconds:6.1f} s] {what}"
        self._happened.append(line)
        if self._live is None:
            self._console.print(line, highlight=False, soft_wrap=True)
        else:
            self._live.update(self._picture())

    def show(self, numbers: Numbers) -> None:
        """This is how it stands now."""
        self._numbers = numbers
        if self._live is not None:
            self._live.update(self._picture())
        elif self.seconds >= self._next_line:
            self._next_line = self.seconds + _PLAIN_SECONDS
            self.say(_line(numbers))

    def _picture(self) -> Group:
        numbers = self._numbers
        table = Table(title=f"smrx: three nodes, one exchange ({self.seconds:.0f} s)", title_justify="left", box=None)
        for heading in ("node", "role", "term", "applied", "state hash"):
            table.add_column(heading, justify="left" if heading in ("role", "state hash") else "right")
        for node in numbers.nodes:
            table.add_row(
                str(node.node_id),
                Text(node.role, _STYLES.get(node.role, "")),
                str(node.term or "-"),
                f"{node.applied:,}" if node.state_hash else "-",
                f"{node.state_hash:016x}" if node.state_hash else "-",
            )
        flow = Text(
            f"\nacknowledged {numbers.sent:,} of {numbers.of:,} commands, {numbers.per_second:,.0f} a second\n"
            f"trades       {numbers.trades:,} in the exchange, {numbers.settled:,} settled outside by the verifier\n"
        )
        return Group(table, flow, Text("\n".join(self._happened[-_HAPPENINGS:])))


def _line(numbers: Numbers) -> str:
    nodes = ", ".join(
        f"node {node.node_id} {node.role}" + (f" at {node.applied:,}" if node.state_hash else "")
        for node in numbers.nodes
    )
    return (
        f"acknowledged {numbers.sent:,} of {numbers.of:,}, {numbers.per_second:,.0f} a second; {numbers.trades:,} "
        f"trades, {numbers.settled:,} settled; {nodes}"
    )
