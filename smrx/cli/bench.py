"""`smrx bench`: measurements as commands. Parses, runs smrx/bench, prints."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click

from smrx import compiling
from smrx.cli import options, output


@click.group()
def bench() -> None:
    """Measure this machine and print the figures.

    \b
    Example:
      smrx bench engine
    """


@bench.command()
@click.option(
    "--commands",
    type=click.IntRange(1_000, 100_000_000),
    default=2_000_000,
    show_default=True,
    help="Commands to apply.",
)
@click.option("--batch", type=click.IntRange(1, 100_000), default=1_000, show_default=True, help="Commands a call.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Seed of the tape.")
@options.json_option
def engine(commands: int, batch: int, seed: int, as_json: bool) -> None:
    """Measure the engine alone: state hash, ledger and events on, one core.

    Prints the state hash of its run: the same commands give the same hash everywhere.

    \b
    Example:
      smrx bench engine --json
    """
    from smrx.bench import engine as engine_bench

    _compile()
    _print(engine_bench.run(commands, seed=seed, batch=batch), as_json)


@bench.command()
@click.option("--nodes", type=click.IntRange(1, 9), default=3, show_default=True, help="Processes on loopback.")
@click.option(
    "--durability", type=click.Choice(["memory"]), default="memory", show_default=True, help="Durability mode."
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=1, max=3600),
    default=10.0,
    show_default=True,
    help="Half for throughput, half for latency.",
)
@options.json_option
def cluster(nodes: int, durability: str, seconds: float, as_json: bool) -> None:
    """Measure a whole cluster on this machine: acknowledged commands a second, and latency of single orders.

    \b
    Example:
      smrx bench cluster --nodes 3 --durability memory --seconds 10 --json
    """
    from smrx.bench import cluster as cluster_bench

    _compile()
    with _progress() as progress:
        figures = cluster_bench.run(nodes=nodes, durability=durability, seconds=seconds, progress=progress)
    _print(figures, as_json)


@bench.command()
@click.option(
    "--events",
    type=click.IntRange(10_000, 100_000_000),
    default=1_000_000,
    show_default=True,
    help="Events to catch up with.",
)
@click.option(
    "--sink", type=click.Choice(["csv", "lmdb"]), default="csv", show_default=True, help="Where trades are stored."
)
@click.option(
    "--rate",
    type=click.IntRange(1_000, 10_000_000),
    default=100_000,
    show_default=True,
    help="Events a second of the live feed whose lag is measured.",
)
@click.option(
    "--seconds", type=click.FloatRange(min=1, max=3600), default=5.0, show_default=True, help="Of the live feed."
)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Seed of the market.")
@options.json_option
def settle(events: int, sink: str, rate: int, seconds: float, seed: int, as_json: bool) -> None:
    """Measure settlement: events verified into a sink a second on one core, and the lag behind a live feed.

    \b
    Example:
      smrx bench settle --sink csv --json
    """
    from smrx.bench import settle as settle_bench

    _compile()
    with _progress() as progress:
        figures = settle_bench.run(events=events, sink=sink, rate=rate, seconds=seconds, seed=seed, progress=progress)
    _print(figures, as_json)


def _compile() -> None:
    compiling.ready_engine(lambda what: click.echo(what, err=True))


@contextmanager
def _progress() -> Iterator[Callable[[str, float], None] | None]:
    """Show how far each phase is, on a terminal; yields None in a pipe."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    with Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console) as bar:
        tasks: dict[str, Any] = {}

        def show(phase: str, share: float) -> None:
            if phase not in tasks:
                tasks[phase] = bar.add_task(phase, total=1.0)
            bar.update(tasks[phase], completed=share)

        yield show


def _print(figures: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        output.print_json(figures)
        return
    output.print_table(("FIGURE", "VALUE"), _flat(figures), empty="no figures")


def _flat(figures: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            whole = isinstance(value, int) or (isinstance(value, float) and value >= 1000)
            yield f"{prefix}{name}", f"{value:,.0f}" if whole and not isinstance(value, bool) else str(value)
