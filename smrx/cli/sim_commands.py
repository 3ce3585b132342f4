"""`smrx sim`: test a simulated cluster with random faults. Parses, runs smrx/sim, prints."""

import logging
from typing import TYPE_CHECKING

import click

from smrx.cli import options, output, progress
from smrx.cli.exit_codes import Exit

if TYPE_CHECKING:
    from smrx.sim import Verdict
    from smrx.sim.search import Tally


@click.command()
@click.argument("seed", type=click.IntRange(min=0), required=False)
@click.option(
    "--start", type=click.IntRange(min=0), default=0, show_default=True, help="First seed to run with --seeds."
)
@click.option("--seeds", type=click.IntRange(min=1), help="Run this many seeds.")
@click.option("--jobs", type=click.IntRange(1, 256), default=1, show_default=True, help="Worker processes for --seeds.")
@click.option("--verbose", is_flag=True, help="Print the whole timeline of a run.")
@options.json_option
def sim(seed: int | None, start: int, seeds: int | None, jobs: int, verbose: bool, as_json: bool) -> None:
    """Test simulated clusters with random faults.

    A run has real nodes, engines and clients on simulated time, network and disks, and depends only on its seed. Exits
    with 6 if a check fails; the first line of a failure is the command that repeats it.

    \b
    Example:
      smrx sim 7
      smrx sim --start 1000 --seeds 500 --json
    """
    if (seed is None) == (seeds is None):
        raise click.UsageError("give either a SEED or --seeds N")
    progress.compile_engine()
    failed = _search(start, seeds, jobs, as_json) if seed is None else _one(seed, verbose, as_json)
    if failed:
        output.exit_with(Exit.DIVERGED)


def _one(seed: int, verbose: bool, as_json: bool) -> bool:
    from smrx.sim import simulate

    logging.disable(logging.CRITICAL)
    verdict = simulate(seed)
    if as_json:
        output.print_json(
            {
                "seed": seed,
                "failure": verdict.failure,
                "commands": verdict.commands,
                "answers": verdict.answers,
                "faults": verdict.faults,
                "member_changes": verdict.changes,
                "simulated_seconds": round(verdict.seconds, 3),
                "stands_still": verdict.stands_still,
                "timeline": verdict.digest,
            }
        )
    else:
        _print_verdict(verdict, verbose)
    return verdict.failure is not None


def _print_verdict(verdict: "Verdict", verbose: bool) -> None:
    if verdict.failure is not None:
        click.echo(verdict.command)
    if verbose or verdict.failure is not None:
        click.echo("\n".join(verdict.profile.lines()))
        click.echo("\n".join(verdict.timeline.lines(None) if verbose else verdict.timeline.lines()))
    profile = verdict.profile
    click.echo(
        f"seed {verdict.seed}: {profile.nodes} node{'s' * (profile.nodes > 1)}, "
        f"{'disk' if profile.durable else 'memory'} mode, {verdict.seconds:.1f} simulated seconds, "
        f"{verdict.commands} commands, {verdict.answers} answers, {verdict.faults} faults, timeline {verdict.digest}"
    )
    if verdict.failure is not None:
        click.echo(f"FAILED: {verdict.failure}")
    elif verdict.stands_still:
        click.echo("ok: a majority lost its memory at once, and the cluster stopped and reported it")
    else:
        click.echo("ok: all checks passed, and the cluster recovered")


def _search(start: int, seeds: int | None, jobs: int, as_json: bool) -> bool:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from smrx.sim.search import search

    assert seeds is not None
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("seeds", total=seeds)

        def show(tally: "Tally") -> None:
            failed = f", {len(tally.failures)} failed" if tally.failures else ""
            bar.update(task, completed=tally.seeds, description=f"seeds{failed}")

        tally = search(start, seeds, jobs=jobs, progress=show)
    if as_json:
        output.print_json(
            {
                "seeds": tally.seeds,
                "failures": [
                    {"seed": seed, "failure": failure, "command": f"smrx sim {seed}"}
                    for seed, failure in tally.failures
                ],
                "commands": tally.commands,
                "answers": tally.answers,
                "faults": tally.faults,
                "member_changes": tally.changes,
                "simulated_seconds": round(tally.simulated_seconds, 1),
                "stood_still": tally.stood_still,
                "seconds": round(tally.seconds, 2),
            }
        )
    else:
        for seed, failure in tally.failures:
            click.echo(f"smrx sim {seed}\n  {failure}")
        click.echo(
            f"{tally.seeds:,} seeds, {len(tally.failures)} failures: {tally.commands:,} commands, {tally.answers:,} "
            f"answers, {tally.faults:,} faults, {tally.changes:,} membership changes, "
            f"{tally.simulated_seconds:,.0f} simulated seconds in "
            f"{tally.seconds:.1f} s; in {tally.stood_still} runs a majority lost its memory and the cluster stopped"
        )
    return bool(tally.failures)
