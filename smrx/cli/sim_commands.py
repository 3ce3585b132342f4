"""`smrx sim`: test a simulated cluster with random faults. Parses, runs smrx/sim, prints."""

import logging
import shlex
from typing import TYPE_CHECKING

import click

from smrx.cli import options, output, progress
from smrx.cli.exit_codes import Exit

if TYPE_CHECKING:
    from smrx.sim import RunResult
    from smrx.sim.search import SearchTotals


@click.command()
@click.argument("seed", type=click.IntRange(min=0), required=False)
@click.option(
    "--start", type=click.IntRange(min=0), default=0, show_default=True, help="First seed to run with --seeds."
)
@click.option("--seeds", type=click.IntRange(min=1), help="Run this many seeds.")
@click.option("--jobs", type=click.IntRange(1, 256), default=1, show_default=True, help="Worker processes for --seeds.")
@click.option("--verbose", is_flag=True, help="Print the whole trace of a run.")
@click.option(
    "--next-version",
    metavar="DIR",
    help="The package of another version of smrx, under another name; nodes are upgraded to it and back.",
)
@options.json_option
def sim(
    seed: int | None,
    start: int,
    seeds: int | None,
    jobs: int,
    verbose: bool,
    next_version: str | None,
    as_json: bool,
) -> None:
    """Test simulated clusters with random faults.

    A run has real nodes, engines and clients on simulated time, network and disks, and depends only on its seed. Exits
    with 6 if a check fails; the first line of a failure is the command that repeats it. With --next-version a run also
    depends on that package; `python -m tests.versions` in the source tree makes one.

    \b
    Example:
      smrx sim 7
      smrx sim --start 1000 --seeds 500 --json
    """
    if (seed is None) == (seeds is None):
        raise click.UsageError("give either a SEED or --seeds N")
    progress.compile_engine()
    if seed is None:
        failed = _search(start, seeds, jobs, next_version, as_json)
    else:
        failed = _one(seed, verbose, next_version, as_json)
    if failed:
        output.exit_with(Exit.DIVERGED)


def _command(seed: int, next_version: str | None) -> str:
    """Return the command that repeats a run."""
    return f"smrx sim {seed}" + ("" if next_version is None else f" --next-version {shlex.quote(next_version)}")


def _one(seed: int, verbose: bool, next_version: str | None, as_json: bool) -> bool:
    from smrx.sim import simulate
    from smrx.sim.run import simulate_upgrades
    from smrx.sim.versions import load_next_version

    logging.disable(logging.CRITICAL)
    result = simulate(seed) if next_version is None else simulate_upgrades(seed, load_next_version(next_version))
    if as_json:
        output.print_json(
            {
                "seed": seed,
                "failure": result.failure,
                "commands": result.commands,
                "answers": result.answers,
                "faults": result.faults,
                "member_changes": result.member_changes,
                "simulated_seconds": round(result.simulated_seconds, 3),
                "stands_still": result.stands_still,
                "timeline": result.digest,
            }
        )
    else:
        _print_result(result, verbose, _command(seed, next_version))
    return result.failure is not None


def _print_result(result: "RunResult", verbose: bool, command: str) -> None:
    if result.failure is not None:
        click.echo(command)
    if verbose or result.failure is not None:
        click.echo("\n".join(result.profile.lines()))
        click.echo("\n".join(result.trace.lines(None) if verbose else result.trace.lines()))
    profile = result.profile
    click.echo(
        f"seed {result.seed}: {profile.nodes} node{'s' * (profile.nodes > 1)}, "
        f"{'disk' if profile.durable else 'memory'} mode, {result.simulated_seconds:.1f} simulated seconds, "
        f"{result.commands} commands, {result.answers} answers, {result.faults} faults, trace {result.digest}"
    )
    if result.failure is not None:
        click.echo(f"FAILED: {result.failure}")
    elif result.stands_still:
        click.echo("ok: a majority lost its memory at once, and the cluster stopped and reported it")
    else:
        click.echo("ok: all checks passed, and the cluster recovered")


def _search(start: int, seeds: int | None, jobs: int, next_version: str | None, as_json: bool) -> bool:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from smrx.sim.search import search

    assert seeds is not None
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("seeds", total=seeds)

        def show(totals: "SearchTotals") -> None:
            failed = f", {len(totals.failures)} failed" if totals.failures else ""
            bar.update(task, completed=totals.seeds, description=f"seeds{failed}")

        totals = search(start, seeds, jobs=jobs, next_version=next_version, progress=show)
    if as_json:
        output.print_json(
            {
                "seeds": totals.seeds,
                "failures": [
                    {"seed": seed, "failure": failure, "command": _command(seed, next_version)}
                    for seed, failure in totals.failures
                ],
                "commands": totals.commands,
                "answers": totals.answers,
                "reads": totals.reads,
                "faults": totals.faults,
                "member_changes": totals.member_changes,
                "simulated_seconds": round(totals.simulated_seconds, 1),
                "stood_still": totals.stood_still,
                "seconds": round(totals.seconds, 2),
            }
        )
    else:
        for seed, failure in totals.failures:
            click.echo(f"{_command(seed, next_version)}\n  {failure}")
        click.echo(
            f"{totals.seeds:,} seeds, {len(totals.failures)} failures: {totals.commands:,} commands, "
            f"{totals.answers:,} answers, {totals.reads:,} reads, {totals.faults:,} faults, "
            f"{totals.member_changes:,} membership changes, {totals.simulated_seconds:,.0f} simulated seconds in "
            f"{totals.seconds:.1f} s; in {totals.stood_still} runs a majority lost its memory and the cluster stopped"
        )
    return bool(totals.failures)
