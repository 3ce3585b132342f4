"""Define `python -m cluster torture`: run clusters under faults one after another and print the results."""

import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from types import FrameType
from typing import Any

import click
import msgspec

from cluster.torture.fault_plan import Durability
from cluster.torture.torture_run import RunResult, run_torture
from smrx import compiling
from smrx.cli.exit_codes import Exit

#: The time a run takes besides its faults: start, recovery, comparison and checks.
_OVERHEAD_SECONDS = 12.0
_MIN_FAULT_SECONDS = 5.0
_RUN_SECONDS = 60.0


@click.command()
@click.option(
    "--minutes", type=click.FloatRange(min=0.1), default=1.0, show_default=True, help="Approximate total time."
)
@click.option(
    "--seed", type=click.IntRange(min=0), help="Seed of the first run; each next run adds 1.  [default: random]"
)
@click.option("--nodes", type=click.IntRange(3, 9), default=3, show_default=True, help="Nodes of each cluster.")
@click.option(
    "--durability",
    type=click.Choice(["memory", "disk", "both"]),
    default="both",
    show_default=True,
    help="Where nodes keep the log; both: alternating.",
)
@click.option(
    "--fault-seconds",
    type=click.FloatRange(min=1.0),
    help="Inject faults for this long in one run of each durability; overrides --minutes.",
)
@click.option("--verbose", is_flag=True, help="Print every fault as it happens, as on a terminal.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def torture(
    minutes: float,
    seed: int | None,
    nodes: int,
    durability: str,
    fault_seconds: float | None,
    verbose: bool,
    as_json: bool,
) -> None:
    """Run clusters of real processes under random faults and check that they lose nothing.

    Each run starts a cluster with clients that send orders and a verifier that settles. Processes are killed and
    stopped, links between nodes cut and delayed, disks filled and files damaged. Then everything is repaired, and the
    records of nodes and clients and the settled trades are checked. Exit code 6 means that a check failed: the output
    then starts with the command that repeats the plan and names the folder with logs and data.

    \b
    Example:
      python -m cluster torture --minutes 10
      python -m cluster torture --minutes 2 --nodes 5 --durability disk --json
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    first = secrets.randbelow(1_000_000) if seed is None else seed
    compiling.compile_engine(lambda text: click.echo(text, err=True))
    watched = verbose or sys.stderr.isatty()
    started = time.monotonic()
    results = []
    try:
        for at, kind, seconds in _planned_runs(minutes, durability, fault_seconds):
            if watched:
                click.echo(f"seed {first + at}: {nodes} nodes, {kind} mode, faults for {seconds:.0f} s", err=True)
            result = run_torture(
                first + at,
                nodes=nodes,
                durability=kind,
                seconds=seconds,
                report=(lambda line: click.echo(line, err=True)) if watched else (lambda line: None),
            )
            results.append(result)
            if not as_json:
                _print(result, watched)
    except KeyboardInterrupt:
        raise click.ClickException("stopped; all processes have ended") from None
    failures = [result for result in results if result.failure is not None]
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(_report(results, time.monotonic() - started)), indent=2))
    else:
        click.echo(f"{len(results)} runs in {time.monotonic() - started:.0f} s, {len(failures)} failed")
    sys.exit(Exit.DIVERGED if failures else Exit.OK)


def _planned_runs(
    minutes: float, durability: str, fault_seconds: float | None
) -> Iterator[tuple[int, Durability, float]]:
    """Yield (number, durability, seconds of faults) of each run."""
    modes: list[Durability] = ["memory", "disk"]
    if durability != "both":
        modes = [mode for mode in modes if mode == durability]
    if fault_seconds is not None:
        yield from ((at, mode, fault_seconds) for at, mode in enumerate(modes))
        return
    total = 60.0 * minutes
    count = max(len(modes), round(total / _RUN_SECONDS))
    seconds = max(_MIN_FAULT_SECONDS, total / count - _OVERHEAD_SECONDS)
    yield from ((at, modes[at % len(modes)], seconds) for at in range(count))


def _print(result: RunResult, watched: bool) -> None:
    if result.failure is not None:
        click.echo(result.command)
        if not watched:
            click.echo("\n".join(result.timeline))
        click.echo(f"FAILED: {result.failure}")
        click.echo(f"logs, data and timeline are in {result.folder}")
        return
    history, settlement = result.history, result.settlement
    assert history is not None
    assert settlement is not None
    faults = sum(result.faults.values())
    click.echo(
        f"ok: seed {result.seed}, {result.nodes} nodes, {result.durability} mode, {faults} faults; "
        f"{history.commands:,} commands in {history.entries:,} log entries and {history.terms_led} terms, applied "
        f"identically by {history.incarnations} node processes; {history.requests:,} requests; "
        f"{history.answered:,} answered, each applied once; {history.unanswered:,} unanswered, "
        f"{history.unanswered_applied:,} of them applied, once; "
        f"{settlement.trades:,} trades settled by {settlement.verifiers} verifier{'s' * (settlement.verifiers > 1)}, "
        f"equal to the log; first order acknowledged {result.recovery_s:.2f} s after the repair "
        f"({result.allowed_s:.1f} s allowed); longest time without an outcome {history.longest_gap_s:.1f} s"
    )


def _report(results: list[RunResult], seconds: float) -> dict[str, Any]:
    faults: Counter[str] = Counter()
    for result in results:
        faults.update(result.faults)
    runs = [
        asdict(result)
        | {
            "command": result.command,
            "history": None if result.history is None else result.history._asdict(),
            "settlement": None if result.settlement is None else msgspec.to_builtins(result.settlement),
            "folder": None if result.folder is None else str(result.folder),
            "timeline": result.timeline if result.failure is not None else [],
        }
        for result in results
    ]
    return {
        "runs": runs,
        "failures": sum(result.failure is not None for result in results),
        "faults": dict(sorted(faults.items())),
        "seconds": round(seconds, 1),
    }


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
