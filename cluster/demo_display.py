"""Display the demo: live on a terminal, plain lines otherwise. Shows what it is given and reads nothing itself."""

import time
from types import TracebackType

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

_MAX_EVENTS = 9
_PLAIN_SECONDS = 2.0
_STYLES = {"leader": "bold green", "killed": "bold red"}


class NodeRow(msgspec.Struct, frozen=True):
    """The row of one node."""

    node_id: int
    role: str
    term: int = 0
    applied: int = 0
    state_hash: int = 0


class DemoFigures(msgspec.Struct, frozen=True):
    """The figures that change all the time."""

    nodes: tuple[NodeRow, ...] = ()
    acknowledged: int = 0
    commands: int = 0
    per_second: float = 0.0
    trades: int = 0
    settled: int = 0


class DemoDisplay:
    """Use as a context manager: log() what happens, update() the figures."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._started = time.monotonic()
        self._events: list[str] = []
        self._figures = DemoFigures()
        self._next_line = 0.0
        # The live display disappears when the demo ends; the lines printed by log() stay.
        self._live = Live(console=self._console, refresh_per_second=8) if self._console.is_terminal else None

    def __enter__(self) -> "DemoDisplay":
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
        """Seconds since the start."""
        return time.monotonic() - self._started

    def log(self, text: str) -> None:
        """Add a line about something that happened."""
        line = f"[{self.seconds:6.1f} s] {text}"
        self._events.append(line)
        if self._live is None:
            self._console.print(line, highlight=False, soft_wrap=True)
        else:
            self._live.update(self._picture())

    def update(self, figures: DemoFigures) -> None:
        """Show new figures; in a pipe, at most one line every two seconds."""
        self._figures = figures
        if self._live is not None:
            self._live.update(self._picture())
        elif self.seconds >= self._next_line:
            self._next_line = self.seconds + _PLAIN_SECONDS
            self.log(_line(figures))

    def _picture(self) -> Group:
        figures = self._figures
        table = Table(title=f"smrx: three nodes, one exchange ({self.seconds:.0f} s)", title_justify="left", box=None)
        for heading in ("node", "role", "term", "applied", "state hash"):
            table.add_column(heading, justify="left" if heading in ("role", "state hash") else "right")
        for node in figures.nodes:
            table.add_row(
                str(node.node_id),
                Text(node.role, _STYLES.get(node.role, "")),
                str(node.term or "-"),
                f"{node.applied:,}" if node.state_hash else "-",
                f"{node.state_hash:016x}" if node.state_hash else "-",
            )
        summary = Text(
            f"\nacknowledged {figures.acknowledged:,} of {figures.commands:,} commands, {figures.per_second:,.0f}/s\n"
            f"trades       {figures.trades:,} matched by the exchange, {figures.settled:,} settled by the verifier\n"
        )
        return Group(table, summary, Text("\n".join(self._events[-_MAX_EVENTS:])))


def _line(figures: DemoFigures) -> str:
    nodes = ", ".join(
        f"node {node.node_id} {node.role}" + (f" at {node.applied:,}" if node.state_hash else "")
        for node in figures.nodes
    )
    return (
        f"acknowledged {figures.acknowledged:,} of {figures.commands:,} commands, {figures.per_second:,.0f}/s; "
        f"{figures.trades:,} trades, {figures.settled:,} settled; {nodes}"
    )
