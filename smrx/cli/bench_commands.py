"""`smrx bench`: measure this machine. This file holds the group and the benchmarks of the engine in one process.

The benchmarks of nodes, journals and settlement are in bench_cluster_commands.py. The commands parse, run smrx/bench
and print.
"""

import click

from smrx.cli import bench_cluster_commands, bench_load_commands, bench_peers_commands, options, output, progress
from smrx.cli.bench_shared import (
    batch_option,
    errors_as_usage,
    print_figures,
    repeats_option,
    seed_option,
    write_picture,
)


@click.group()
def bench() -> None:
    """Run benchmarks on this machine.

    \b
    Example:
      smrx bench engine
    """


for _command in bench_cluster_commands.COMMANDS:
    bench.add_command(_command)
bench.add_command(bench_load_commands.load)
bench.add_command(bench_peers_commands.peers)


@bench.command()
@click.option(
    "--tier",
    type=click.Choice(["A", "B", "C"]),
    default="B",
    show_default=True,
    help="A: matching and trades only. B: A plus hash, ledger and events. C: B plus a synced journal.",
)
@click.option(
    "--tape",
    type=click.Choice(["mixed", "cancel-heavy", "deep-book", "sweep-heavy", "real", "public"]),
    default="mixed",
    show_default=True,
    help="The order flow; `real` and `public` read FILES.",
)
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False))
@click.option(
    "--commands",
    type=click.IntRange(1_000, 100_000_000),
    default=2_000_000,
    show_default=True,
    help="Commands to apply.",
)
@batch_option
@seed_option
@repeats_option
@options.json_option
def engine(
    tier: str, tape: str, files: tuple[str, ...], commands: int, batch: int, seed: int, repeats: int, as_json: bool
) -> None:
    """Measure the engine in one process, on one core.

    FILES is for --tape real: a LOBSTER message file and optionally its orderbook file, or a tape of `smrx tape
    generate`. For --tape public it is a workload of github.com/flash1-dev/matching-engine-benchmark; then the hash of
    all reports is printed too, and the scenario for which that benchmark publishes it.

    Prints the state hash of the run; the same commands give the same hash on every machine.

    \b
    Example:
      smrx bench engine --json
      smrx bench engine --tier A --tape deep-book
      smrx bench engine --batch 1
    """
    from smrx.bench import engine_bench

    progress.compile_engine()
    with errors_as_usage():
        figures = engine_bench.run(commands, tape=tape, seed=seed, batch=batch, tier=tier, files=files, repeats=repeats)
    print_figures(figures, as_json)


@bench.command()
@click.option(
    "--rate",
    type=click.IntRange(1_000, 100_000_000),
    default=1_000_000,
    show_default=True,
    help="Commands that arrive per second.",
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
    help="A: matching and trades only. B: A plus hash, ledger and events.",
)
@seed_option
@click.option("--svg", "svg_file", type=click.Path(dir_okay=False), help="Write a chart of percentiles to this file.")
@options.json_option
def latency(rate: int, commands: int, tier: str, seed: int, svg_file: str | None, as_json: bool) -> None:
    """Measure the latency of the engine at a fixed arrival rate.

    The latency of an order is the time from its scheduled arrival to its trades, in one process, without sockets and
    consensus. A pause of the engine therefore counts for every order that arrives during it.

    \b
    Example:
      smrx bench latency --rate 1000000 --svg latency.svg
    """
    from smrx.bench import latency_bench

    progress.compile_engine()
    with errors_as_usage():
        figures = latency_bench.run(commands, rate, seed=seed, tier=tier)
    if svg_file is not None:
        write_picture(svg_file, latency_bench.picture(figures))
    if not as_json:
        del figures["curve"]
    print_figures(figures, as_json)


@bench.command()
@click.option(
    "--commands",
    type=click.IntRange(100_000, 1_000_000_000),
    default=10_000_000,
    show_default=True,
    help="Total commands; the first measurement is after a tenth of them.",
)
@options.json_option
def memory(commands: int, as_json: bool) -> None:
    """Measure whether memory stays constant while the size of the book does.

    \b
    Example:
      smrx bench memory --json
    """
    from smrx.bench import memory_bench

    progress.compile_engine()
    with progress.phase_bars() as show:
        figures = memory_bench.run(commands // 10, commands, progress=show)
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
    "--orders",
    type=click.IntRange(1_000, 10_000_000),
    default=1_000_000,
    show_default=True,
    help="Open orders that the market grows to.",
)
@click.option(
    "--accounts",
    type=click.IntRange(1, 1_000_000),
    default=100_000,
    show_default=True,
    help="Accounts with two balances each.",
)
@options.json_option
def pauses(orders: int, accounts: int, as_json: bool) -> None:
    """Measure the longest turn of a node's loop, and its cause, while a market grows.

    Between commands the loop answers reads, compares balances for heartbeats, and takes snapshots and listings. A turn
    should stay below 5 ms of processor time.

    \b
    Example:
      smrx bench pauses --json
      smrx bench pauses --orders 10000000 --accounts 1000000
    """
    from smrx.bench import pauses_bench

    progress.compile_engine()
    with progress.phase_bars() as show, errors_as_usage():
        figures = pauses_bench.run(orders, accounts, show)
    print_figures(figures, as_json)


@bench.command()
@click.option(
    "--largest",
    type=click.IntRange(1_000, 10_000_000),
    default=1_000_000,
    show_default=True,
    help="The largest size; the sizes grow tenfold from 1,000.",
)
@repeats_option
@click.option("--svg", "svg_file", type=click.Path(dir_okay=False), help="Write a chart of the curves to this file.")
@options.json_option
def scale(largest: int, repeats: int, svg_file: str | None, as_json: bool) -> None:
    """Measure the cost of a command and the memory as the exchange grows, and the worst cases.

    In the curve of the whole exchange all sizes grow together: a million orders at a million prices belong to 100,000
    accounts and 1,000 instruments.

    \b
    Example:
      smrx bench scale --largest 100000 --svg curves.svg
    """
    from smrx.bench import scale_bench

    progress.compile_engine()
    sizes = [size for size in scale_bench.SIZES if size < largest] + [largest]
    with errors_as_usage(), progress.phase_bars() as show:
        figures = scale_bench.run(sizes, repeats, progress=show)
    if svg_file is not None:
        write_picture(svg_file, scale_bench.picture(figures))
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
    "--messages",
    type=click.IntRange(100, 10_000_000),
    default=100_000,
    show_default=True,
    help="Messages of 64 bytes that each way carries.",
)
@options.json_option
def ring(messages: int, as_json: bool) -> None:
    """Measure a ring in shared memory beside sockets and a queue, between two processes of this machine.

    The other process sends each message back: one under way, and 16. A ring whose sides spin takes two processors; one
    whose sides sleep is what a node uses.

    \b
    Example:
      smrx bench ring --json
    """
    from smrx.bench import ring_bench

    with progress.phase_bars() as show:
        figures = ring_bench.run(messages, progress=show)
    if as_json:
        output.print_json(figures)
        return
    output.print_table(
        ("WAY", "LONE P50 US", "LONE P99 US", "MESSAGES/S", "CPU NS A MESSAGE"),
        [
            (
                row["name"],
                f"{row['lone_us']['p50']:,}",
                f"{row['lone_us']['p99']:,}",
                f"{row['per_second']:,}",
                f"{row['cpu_ns']:,}",
            )
            for row in figures["ways"]
        ],
        empty="no ways",
    )
