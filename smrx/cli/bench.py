"""`smrx bench`: measurements as commands. Parses, runs smrx/bench, prints."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import click

from smrx import compiling
from smrx.cli import options, output
from smrx.cli.exits import Exit
from smrx.cli.failures import Failure


@click.group()
def bench() -> None:
    """Measure this machine and print the figures.

    \b
    Example:
      smrx bench engine
    """


@bench.command()
@click.option(
    "--tier",
    type=click.Choice(["A", "B", "C"]),
    default="B",
    show_default=True,
    help="A: match and trades only. B: hash, ledger, events. C: B, journaled and synced.",
)
@click.option(
    "--tape",
    type=click.Choice(["mixed", "cancel-heavy", "deep-book", "sweep-heavy", "real"]),
    default="mixed",
    show_default=True,
    help="The order flow; `real` is read from FILES.",
)
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False))
@click.option(
    "--commands",
    type=click.IntRange(1_000, 100_000_000),
    default=2_000_000,
    show_default=True,
    help="Commands to apply.",
)
@click.option("--batch", type=click.IntRange(1, 100_000), default=1_000, show_default=True, help="Commands a call.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Seed of the tape.")
@click.option(
    "--repeats", type=click.IntRange(1, 100), default=3, show_default=True, help="Runs; the fastest one counts."
)
@options.json_option
def engine(
    tier: str, tape: str, files: tuple[str, ...], commands: int, batch: int, seed: int, repeats: int, as_json: bool
) -> None:
    """Measure the engine alone, on one core.

    FILES, with --tape real: a LOBSTER message file and, if there is one, its orderbook file; or a tape of `smrx tape
    generate`. Prints the state hash of its run: the same commands give the same hash everywhere.

    \b
    Example:
      smrx bench engine --json
      smrx bench engine --tier A --tape deep-book
      smrx bench engine --batch 1
    """
    from smrx.bench import engine as engine_bench

    _compile()
    with _mistakes():
        figures = engine_bench.run(commands, tape=tape, seed=seed, batch=batch, tier=tier, files=files, repeats=repeats)
    _print(figures, as_json)


@bench.command()
@click.option(
    "--tape",
    type=click.Choice(["mixed", "cancel-heavy", "deep-book", "sweep-heavy"]),
    default="mixed",
    show_default=True,
    help="The order flow.",
)
@click.option(
    "--commands",
    type=click.IntRange(1_000, 10_000_000),
    default=200_000,
    show_default=True,
    help="Commands of the tape.",
)
@click.option("--batch", type=click.IntRange(1, 100_000), default=1_000, show_default=True, help="Commands a call.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Seed of the tape.")
@click.option(
    "--repeats", type=click.IntRange(1, 100), default=3, show_default=True, help="Runs; the fastest one counts."
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.1, max=3600),
    default=10.0,
    show_default=True,
    help="Where a peer's run ends; it is judged by what it did.",
)
@click.option(
    "--liquibook",
    type=click.Path(exists=True, file_okay=False),
    help="A checkout of liquibook: a driver in C++ is built on it and runs too.",
)
@options.json_option
def peers(
    tape: str,
    commands: int,
    batch: int,
    seed: int,
    repeats: int,
    seconds: float,
    liquibook: str | None,
    as_json: bool,
) -> None:
    """Measure the engine and other order books on one tape.

    pip install "smrx[peers]" brings the others. A speed is printed only for fills that are identical, one by one:
    maker, taker, price and lots. A ratio says how many times as fast this engine is, in tier A (match and trades only)
    and in tier B (everything on).

    \b
    Example:
      smrx bench peers --commands 200000 --json
    """
    from smrx.bench.peers import comparison

    _compile()
    with _mistakes():
        figures = comparison.run(
            commands, tape=tape, seed=seed, batch=batch, repeats=repeats, limit_s=seconds, liquibook=liquibook
        )
    if as_json:
        output.print_json(figures)
        return
    columns = ("ORDER BOOK", "VERSION", "COMMANDS/S", "FILLS", "TIER A IS", "TIER B IS")
    measured = [row for row in figures["peers"] if row["commands_per_second"]]
    output.print_table(
        columns,
        [
            (
                row["name"],
                row["version"],
                f"{row['commands_per_second']:,}",
                "identical",
                f"{row['ratio']}x",
                f"{row['ratio_tier_b']}x",
            )
            for row in measured
        ],
        empty="no peers",
    )
    for row in figures["peers"]:
        if row not in measured:
            click.echo(f"{row['name']}: {'other fills: ' if row['fills_identical'] is False else ''}{row['absent']}")
    click.echo(f"{figures['commands']:,} commands, {figures['fills']:,} fills")


@bench.command()
@click.option(
    "--largest",
    type=click.IntRange(1_000, 10_000_000),
    default=1_000_000,
    show_default=True,
    help="The largest size; the others are a tenth of the next, from 1,000 on.",
)
@click.option(
    "--repeats", type=click.IntRange(1, 100), default=3, show_default=True, help="Runs; the fastest one counts."
)
@click.option("--svg", "svg_file", type=click.Path(dir_okay=False), help="Draw the curves into this file.")
@options.json_option
def scale(largest: int, repeats: int, svg_file: str | None, as_json: bool) -> None:
    """Measure what a command costs as the exchange grows, its worst cases, and the memory that it takes.

    In the whole exchange everything grows at once: a million orders at a million prices are those of 100,000 accounts
    on 1,000 instruments.

    \b
    Example:
      smrx bench scale --largest 100000 --svg curves.svg
    """
    from smrx.bench import scale as scale_bench

    _compile()
    sizes = [size for size in scale_bench.SIZES if size < largest] + [largest]
    with _mistakes(), _progress() as progress:
        figures = scale_bench.run(sizes, repeats, progress=progress)
    if svg_file is not None:
        _write(svg_file, scale_bench.picture(figures))
    if as_json:
        output.print_json(figures)
        return
    rows = []
    for curve in figures["curves"]:
        costs = {point["size"]: f"{point['ns']:,.0f}" for point in curve["points"]}
        growth = output.NOTHING if curve["growth"] is None else f"{curve['growth']}x"
        rows.append((curve["name"], curve["unit"], *(costs.get(size, output.NOTHING) for size in sizes), growth))
    output.print_table(("NANOSECONDS", "PER", *(f"{size:,}" for size in sizes), "GROWTH"), rows, empty="no curves")
    for curve in figures["curves"]:
        if curve["absent"]:
            click.echo(f"{curve['name']}: {curve['absent']}")
    click.echo()
    output.print_table(
        ("ORDERS", "PRICES", "ACCOUNTS", "INSTRUMENTS", "TABLE BYTES", "RESIDENT BYTES", "TABLE BYTES PER ORDER"),
        [tuple(output.NOTHING if cell is None else f"{cell:,}" for cell in row.values()) for row in figures["memory"]],
        empty="no sizes",
    )


@bench.command()
@click.option(
    "--commands",
    type=click.IntRange(100_000, 1_000_000_000),
    default=10_000_000,
    show_default=True,
    help="Commands in all; the first comparison is after a tenth of them.",
)
@options.json_option
def memory(commands: int, as_json: bool) -> None:
    """Measure the memory of a steady book, early and late: it stays the same.

    \b
    Example:
      smrx bench memory --json
    """
    from smrx.bench import memory as memory_bench

    _compile()
    with _progress() as progress:
        figures = memory_bench.run(commands // 10, commands, progress=progress)
    if as_json:
        output.print_json(figures)
        return
    output.print_table(
        ("AFTER COMMANDS", "OPEN ORDERS", "RESIDENT BYTES", "TABLE BYTES"),
        [
            tuple(f"{point[key]:,}" for key in ("commands", "open_orders", "resident_bytes", "table_bytes"))
            for point in figures["points"]
        ],
        empty="no points",
    )
    click.echo(f"ratio       {figures['resident_ratio']} resident, {figures['table_ratio']} tables")
    click.echo(f"state hash  {figures['state_hash']}")


@bench.command()
@click.option(
    "--rate",
    type=click.IntRange(1_000, 100_000_000),
    default=1_000_000,
    show_default=True,
    help="Commands that arrive in a second.",
)
@click.option(
    "--commands",
    type=click.IntRange(10_000, 100_000_000),
    default=3_000_000,
    show_default=True,
    help="Commands to measure.",
)
@click.option(
    "--tier",
    type=click.Choice(["A", "B"]),
    default="B",
    show_default=True,
    help="A: match and trades only. B: hash, ledger, events.",
)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Seed of the tape.")
@click.option("--svg", "svg_file", type=click.Path(dir_okay=False), help="Draw the percentiles into this file.")
@options.json_option
def latency(rate: int, commands: int, tier: str, seed: int, svg_file: str | None, as_json: bool) -> None:
    """Measure how long orders wait for their result when they arrive on their own schedule.

    From an order's scheduled arrival to its trades, in one process, without sockets and consensus; an engine that
    stands still makes every order wait that came meanwhile.

    \b
    Example:
      smrx bench latency --rate 1000000 --svg latency.svg
    """
    from smrx.bench import latency as latency_bench

    _compile()
    with _mistakes():
        figures = latency_bench.run(commands, rate, seed=seed, tier=tier)
    if svg_file is not None:
        _write(svg_file, latency_bench.picture(figures))
    if not as_json:
        del figures["curve"]
    _print(figures, as_json)


@bench.command()
@click.option("--nodes", type=click.IntRange(1, 9), default=3, show_default=True, help="Processes on loopback.")
@click.option(
    "--durability", type=click.Choice(["memory", "disk"]), default="memory", show_default=True, help="Durability mode."
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=1, max=3600),
    default=10.0,
    show_default=True,
    help="Half for throughput, half for latency.",
)
@options.json_option
def cluster(nodes: int, durability: Literal["memory", "disk"], seconds: float, as_json: bool) -> None:
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
    "--kills", type=click.IntRange(0, 10_000), default=20, show_default=True, help="Times the leader is killed."
)
@click.option(
    "--transfers",
    type=click.IntRange(0, 10_000),
    default=0,
    show_default=True,
    help="Times the leader lets another node lead.",
)
@click.option("--nodes", type=click.IntRange(3, 9), default=3, show_default=True, help="Processes on loopback.")
@click.option(
    "--durability", type=click.Choice(["memory", "disk"]), default="memory", show_default=True, help="Durability mode."
)
@options.json_option
def failover(kills: int, transfers: int, nodes: int, durability: Literal["memory", "disk"], as_json: bool) -> None:
    """Measure how long no order is acknowledged when the leader is killed, or hands over.

    One client sends one order after the other. Each kill is a SIGKILL of the leader; the time runs until an order that
    was sent after it is acknowledged. The node is back in full before the next. Ends with an error if an acknowledged
    order is lost or doubled.

    \b
    Example:
      smrx bench failover --kills 100 --json
      smrx bench failover --kills 0 --transfers 50
    """
    from smrx.bench import failover as failover_bench

    if kills + transfers == 0:
        raise Failure(Exit.USAGE, "expected --kills or --transfers of 1 or more, found neither")
    _compile()
    with _progress() as progress:
        figures = failover_bench.run(
            kills=kills, transfers=transfers, nodes=nodes, durability=durability, progress=progress
        )
    _print(figures, as_json)


_dir_option = click.option(
    "--dir",
    "directory",
    type=click.Path(exists=True, file_okay=False),
    help="Where the files go meanwhile; the system's folder for temporary files if not given.",
)


@bench.command()
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.4, max=3600),
    default=10.0,
    show_default=True,
    help="Shared between the turn sizes.",
)
@_dir_option
@options.json_option
def journal(seconds: float, directory: str | None, as_json: bool) -> None:
    """Measure the journal: commands a second appended and synced, by the bytes of a turn.

    \b
    Example:
      smrx bench journal --json
    """
    from smrx.bench import journal as journal_bench

    with _progress() as progress:
        figures = journal_bench.run(seconds=seconds, directory=directory, progress=progress)
    if not as_json:
        turns = figures.pop("turns")
        figures = {f"{turn.pop('turn_bytes') >> 10} KiB a turn": turn for turn in turns} | figures
    _print(figures, as_json)


@bench.command()
@click.option(
    "--commands",
    type=click.IntRange(1000, 100_000_000),
    default=1_000_000,
    show_default=True,
    help="Commands in the journal after the snapshot.",
)
@click.option(
    "--accounts", type=click.IntRange(1, 10_000_000), default=100_000, show_default=True, help="In the snapshot."
)
@click.option(
    "--orders", type=click.IntRange(1, 50_000_000), default=1_000_000, show_default=True, help="In the snapshot."
)
@click.option(
    "--largest",
    type=click.IntRange(0, 65_536),
    default=2048,
    show_default=True,
    help="Measure the pause for processes up to so many MiB.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, max=3600),
    default=10.0,
    show_default=True,
    help="Measure orders without snapshots for so long, and as long with them; 0 does not.",
)
@_dir_option
@options.json_option
def recovery(
    commands: int, accounts: int, orders: int, largest: int, seconds: float, directory: str | None, as_json: bool
) -> None:
    """Measure restarts and snapshots: until a restarted node serves, and what a snapshot costs a node that serves.

    The last figures are the latency of single orders to three nodes on disk that hold the accounts and orders, without
    snapshots and while every node takes one after the other, with the default election timeouts.

    \b
    Example:
      smrx bench recovery --json
    """
    from smrx.bench import recovery as recovery_bench

    _compile()
    with _progress() as progress:
        figures = recovery_bench.run(
            commands=commands,
            accounts=accounts,
            orders=orders,
            largest_mib=largest,
            seconds=seconds,
            directory=directory,
            progress=progress,
        )
    _print(figures, as_json)


@contextmanager
def _mistakes() -> Iterator[None]:
    """Turn what a benchmark refuses into one sentence for the person who asked for it."""
    from smrx.tape.errors import TapeError

    try:
        yield
    except (ValueError, TapeError) as error:
        raise Failure(Exit.USAGE, str(error)) from None


def _write(path: str, text: str) -> None:
    """Write a picture; one sentence if that cannot be."""
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise Failure(Exit.USAGE, f"{path}: expected a file that can be written, found: {error.strerror}") from None


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
