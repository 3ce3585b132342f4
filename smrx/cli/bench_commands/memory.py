"""`smrx bench memory`: a steady book, early and late. Parses, calls, prints."""

import click

from smrx.cli import options, output
from smrx.cli.bench_commands.figures import compile_engine, progress


@click.command("memory")
@click.option(
    "--commands",
    type=click.IntRange(100_000, 1_000_000_000),
    default=10_000_000,
    show_default=True,
    help="Commands in all; the first comparison is after a tenth of them.",
)
@options.json_option
def command(commands: int, as_json: bool) -> None:
    """Measure the memory of a steady book, early and late: it stays the same.

    \b
    Example:
      smrx bench memory --json
    """
    from smrx.bench import memory_bench

    compile_engine()
    with progress() as show:
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
