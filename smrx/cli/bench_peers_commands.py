"""`smrx bench peers`: the engine beside other order books, and a cluster beside other replicated systems.

Parses, runs smrx/bench/peers and prints. bench_commands.py adds the command to the group `smrx bench`.
"""

from typing import Any, Final

import click

from smrx.cli import options, output, progress
from smrx.cli.bench_shared import batch_option, errors_as_usage, repeats_option, seed_option, tape_option

_CLUSTER_PEERS: Final = ("hashicorp/raft", "etcd", "Aeron Cluster", "PySyncObj")


def _say(line: str) -> None:
    click.echo(line, err=True)


@click.command()
@click.option(
    "--only",
    type=click.Choice(["books", "clusters"]),
    help="Only order books on one core, or only replicated systems; both if not given.",
)
@tape_option
@click.option(
    "--commands",
    type=click.IntRange(1_000, 10_000_000),
    default=200_000,
    show_default=True,
    help="Commands of the tape for order books.",
)
@batch_option
@seed_option
@repeats_option
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.1, max=3600),
    default=10.0,
    show_default=True,
    help="Longest run of an order book; its speed counts what it has done by then.",
)
@click.option(
    "--liquibook",
    type=click.Path(exists=True, file_okay=False),
    help="A checkout of liquibook; builds a C++ driver on it and measures it too.",
)
@click.option(
    "--peer",
    "cluster_peers",
    type=click.Choice(_CLUSTER_PEERS),
    multiple=True,
    help="Replicated systems to measure; all if not given.",
)
@click.option(
    "--load",
    "loads",
    multiple=True,
    metavar="CxN",
    help="C connections with N requests under way each, for replicated systems; 1x1, 100x16, 1000x1 and 1x1000 if not "
    "given.",
)
@click.option(
    "--durability",
    "durabilities",
    type=click.Choice(["memory", "disk"]),
    multiple=True,
    default=["memory"],
    show_default=True,
    help="Of replicated systems; may be given twice.",
)
@click.option(
    "--protocol",
    "protocols",
    type=click.Choice(["tcp", "zmq", "native"]),
    multiple=True,
    default=["tcp", "native"],
    show_default=True,
    help="How the load reaches smrx: order entry of the leader, or a gateway.",
)
@click.option(
    "--load-seconds",
    type=click.FloatRange(min=0.2, max=3600),
    default=5.0,
    show_default=True,
    help="Measured time of each load on a replicated system.",
)
@options.json_option
def peers(
    only: str | None,
    tape: str,
    commands: int,
    batch: int,
    seed: int,
    repeats: int,
    seconds: float,
    liquibook: str | None,
    cluster_peers: tuple[str, ...],
    loads: tuple[str, ...],
    durabilities: tuple[Any, ...],
    protocols: tuple[Any, ...],
    load_seconds: float,
    as_json: bool,
) -> None:
    """Compare the engine with other order books, and a cluster with other replicated systems.

    Order books run one tape on one core. pip install "smrx[peers]" installs those in Python; exchange-core needs Java
    and Maven. A speed is printed only if all fills are identical: maker, taker, price and lots. The ratios say how many
    times as fast this engine is, in tier A (matching and trades only) and in tier B (with hash, ledger and events).

    Replicated systems run three members on this machine under the same closed loops of single requests. hashicorp/raft
    and etcd need Go, Aeron Cluster needs Java and Maven. Their drivers are built once; the first build takes minutes.
    The peers only store or echo a request; smrx matches orders. Quote the ratios of one run, not its figures.

    A peer that cannot be measured is listed with the reason.

    \b
    Example:
      smrx bench peers --only books --commands 200000 --json
      smrx bench peers --only clusters --peer hashicorp/raft --load 1x1
      smrx bench peers --only clusters --durability memory --durability disk --json
    """
    from smrx.bench.peers import cluster_comparison, peer_comparison
    from smrx.bench.peers.replicated_peer import LoadShape, Timing

    progress.compile_engine()
    figures: dict[str, Any] = {}
    with errors_as_usage():
        shapes = [LoadShape.parse(text) for text in loads] or cluster_comparison.SHAPES
        if only != "clusters":
            figures = peer_comparison.run(
                commands,
                tape=tape,
                seed=seed,
                batch=batch,
                repeats=repeats,
                limit_s=seconds,
                liquibook=liquibook,
                say=_say,
            )
        if only != "books":
            found = cluster_comparison.run(
                cluster_peers or _CLUSTER_PEERS,
                shapes=shapes,
                durabilities=durabilities,
                protocols=protocols,
                timing=Timing(1.0, load_seconds),
                say=_say,
            )
            figures["clusters"] = found["clusters"]
            figures["conditions"] = found["conditions"] | figures.get("conditions", {})
    if as_json:
        output.print_json(figures)
        return
    if only != "clusters":
        _print_books(figures)
    if only != "books":
        _print_clusters(figures["clusters"])


def _print_books(figures: dict[str, Any]) -> None:
    columns = ("ORDER BOOK", "VERSION", "COMMANDS/S", "FILLS", "TIER A RATIO", "TIER B RATIO")
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
            click.echo(
                f"{row['name']}: {'its fills differ: ' if row['fills_identical'] is False else ''}{row['absent']}"
            )
    click.echo(f"{figures['commands']:,} commands, {figures['fills']:,} fills")


def _print_clusters(rows: list[dict[str, Any]]) -> None:
    columns = (
        "SYSTEM",
        "DOES",
        "LOAD FROM",
        "DURABILITY",
        "LOAD",
        "PER SECOND",
        "P50 US",
        "P99 US",
        "SMRX/S",
        "SMRX P50",
    )
    output.print_table(
        columns,
        [
            (
                f"{row['name']} {row['version']}",
                row["does"],
                row["load_from"],
                row["durability"],
                f"{row['connections']:,} x {row['in_flight']:,}",
                f"{row['acknowledged_per_second']:,}",
                f"{row['latency_us']['p50']:,}",
                f"{row['latency_us']['p99']:,}",
                *(
                    output.NOTHING if row[ratio] is None else f"{row[ratio]}x"
                    for ratio in ("ratio_throughput", "ratio_p50")
                ),
            )
            for row in rows
            if row["absent"] is None
        ],
        empty="no replicated systems",
    )
    reasons = {(row["name"], row["durability"], row["absent"]): None for row in rows if row["absent"] is not None}
    for name, durability, reason in reasons:
        click.echo(f"{name}, {durability}: {reason}")
