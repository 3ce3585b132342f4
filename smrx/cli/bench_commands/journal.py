"""`smrx bench journal`: commands appended and synced. Parses, calls, prints."""

import click

from smrx.cli import options
from smrx.cli.bench_commands.figures import dir_option, print_figures, progress


@click.command("journal")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.4, max=3600),
    default=10.0,
    show_default=True,
    help="Shared between the turn sizes.",
)
@dir_option
@options.json_option
def command(seconds: float, directory: str | None, as_json: bool) -> None:
    """Measure the journal: commands a second appended and synced, by the bytes of a turn.

    \b
    Example:
      smrx bench journal --json
    """
    from smrx.bench import journal_bench

    with progress() as show:
        figures = journal_bench.run(seconds=seconds, directory=directory, progress=show)
    if not as_json:
        turns = figures.pop("turns")
        figures = {f"{turn.pop('turn_bytes') >> 10} KiB a turn": turn for turn in turns} | figures
    print_figures(figures, as_json)
