"""`smrx bench scale`: what a command costs as the exchange grows. Parses, calls, prints."""

import click

from smrx.cli import options, output
from smrx.cli.bench_commands.figures import compile_engine, mistakes, progress, repeats_option, write


@click.command("scale")
@click.option(
    "--largest",
    type=click.IntRange(1_000, 10_000_000),
    default=1_000_000,
    show_default=True,
    help="The largest size; the others are a tenth of the next, from 1,000 on.",
)
@repeats_option
@click.option("--svg", "svg_file", type=click.Path(dir_okay=False), help="Draw the curves into this file.")
@options.json_option
def command(largest: int, repeats: int, svg_file: str | None, as_json: bool) -> None:
    """Measure what a command costs as the exchange grows, its worst cases, and the memory that it takes.

    In the whole exchange everything grows at once: a million orders at a million prices are those of 100,000 accounts
    on 1,000 instruments.

    \b
    Example:
      smrx bench scale --largest 100000 --svg curves.svg
    """
    from smrx.bench import scale_bench

    compile_engine()
    sizes = [size for size in scale_bench.SIZES if size < largest] + [largest]
    with mistakes(), progress() as show:
        figures = scale_bench.run(sizes, repeats, progress=show)
    if svg_file is not None:
        write(svg_file, scale_bench.picture(figures))
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
