"""`python -m cluster torture`: ordeals of real clusters, one after the other, and a verdict. Parses, runs, prints."""

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

from cluster.torture.ordeal import Outcome, endure
from cluster.torture.plan import Durability
from smrx import compiling
from smrx.cli.exit_codes import Exit

#: What an ordeal takes beside its storm: nodes start, recover, are compared, and everything is judged.
_AROUND_SECONDS = 12.0
_SHORTEST_STORM_SECONDS = 5.0
_ORDEAL_SECONDS = 60.0


@click.command()
@click.option("--minutes", type=click.FloatRange(min=0.1), default=1.0, show_default=True, help="How long, about.")
@click.option(
    "--seed", type=click.IntRange(min=0), help="Seed of the first ordeal; the next ones follow it.  [default: drawn]"
)
@click.option("--nodes", type=click.IntRange(3, 9), default=3, show_default=True, help="Nodes of each cluster.")
@click.option(
    "--durability",
    type=click.Choice(["memory", "disk", "both"]),
    default="both",
    show_default=True,
    help="What the clusters keep their commands in; both: in turn.",
)
@click.option("--storm-seconds", type=click.FloatRange(min=1.0), help="One ordeal of each kind, with a storm so long.")
@click.option("--verbose", is_flag=True, help="Print everything that is done when it is done, as on a terminal.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def torture(
    minutes: float,
    seed: int | None,
    nodes: int,
    durability: str,
    storm_seconds: float | None,
    verbose: bool,
    as_json: bool,
) -> None:
    """Break clusters of real processes in every way there is, and check that they keep what they promise.

    Each ordeal is a cluster of its own with clients that trade and a verifier that settles: processes are killed and
    stopped, links between nodes cut and slowed, disks filled, files damaged. Then everything is repaired, and what
    nodes and clients said, and what was settled, is held against what must hold. Ends with code 6 if something does
    not; a failure begins with the command that repeats its plan, and names the folder where logs and data are kept.

    \b
    Example:
      python -m cluster torture --minutes 10
      python -m cluster torture --minutes 2 --nodes 5 --durability disk --json
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    first = secrets.randbelow(1_000_000) if seed is None else seed
    compiling.compile_engine(lambda what: click.echo(what, err=True))
    watched = verbose or sys.stderr.isatty()
    started = time.monotonic()
    outcomes = []
    try:
        for at, kind, seconds in _ordeals(minutes, durability, storm_seconds):
            if watched:
                click.echo(f"seed {first + at}: {nodes} nodes, {kind} mode, a storm of {seconds:.0f} s", err=True)
            outcome = endure(
                first + at,
                nodes=nodes,
                durability=kind,
                seconds=seconds,
                say=(lambda line: click.echo(line, err=True)) if watched else (lambda line: None),
            )
            outcomes.append(outcome)
            if not as_json:
                _print(outcome, watched)
    except KeyboardInterrupt:
        raise click.ClickException("stopped; no process is left behind") from None
    failures = [outcome for outcome in outcomes if outcome.failure is not None]
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(_report(outcomes, time.monotonic() - started)), indent=2))
    else:
        click.echo(f"{len(outcomes)} ordeals in {time.monotonic() - started:.0f} s, {len(failures)} failed")
    sys.exit(Exit.DIVERGED if failures else Exit.OK)


def _ordeals(minutes: float, durability: str, storm_seconds: float | None) -> Iterator[tuple[int, Durability, float]]:
    """Yield (number, mode, seconds of storm) of each ordeal."""
    modes: list[Durability] = ["memory", "disk"]
    if durability != "both":
        modes = [mode for mode in modes if mode == durability]
    if storm_seconds is not None:
        yield from ((at, mode, storm_seconds) for at, mode in enumerate(modes))
        return
    total = 60.0 * minutes
    count = max(len(modes), round(total / _ORDEAL_SECONDS))
    seconds = max(_SHORTEST_STORM_SECONDS, total / count - _AROUND_SECONDS)
    yield from ((at, modes[at % len(modes)], seconds) for at in range(count))


def _print(outcome: Outcome, watched: bool) -> None:
    if outcome.failure is not None:
        click.echo(outcome.command)
        if not watched:
            click.echo("\n".join(outcome.timeline))
        click.echo(f"FAILED: {outcome.failure}")
        click.echo(f"logs, data and timeline are kept in {outcome.kept}")
        return
    judged, settled = outcome.judged, outcome.settled
    assert judged is not None
    assert settled is not None
    faults = sum(outcome.faults.values())
    click.echo(
        f"ok: seed {outcome.seed}, {outcome.nodes} nodes, {outcome.durability} mode, {faults} faults: "
        f"{judged.commands:,} commands in {judged.entries:,} log entries of {judged.terms_led} terms, applied alike in "
        f"{judged.lives} lives of nodes; {judged.asked:,} requests, {judged.answered:,} answered, each applied once; "
        f"{judged.unknown:,} of unknown fate, {judged.unknown_applied:,} of them applied, once; {settled.trades:,} "
        f"trades settled by {settled.verifiers} verifier{'s' * (settled.verifiers > 1)}, as in the log; an order went "
        f"through {outcome.recovery_s:.2f} s after the repair ({outcome.allowed_s:.1f} s allowed); longest silence for "
        f"all clients {judged.longest_silence_s:.1f} s"
    )


def _report(outcomes: list[Outcome], seconds: float) -> dict[str, Any]:
    faults: Counter[str] = Counter()
    for outcome in outcomes:
        faults.update(outcome.faults)
    ordeals = [
        asdict(outcome)
        | {
            "command": outcome.command,
            "judged": None if outcome.judged is None else outcome.judged._asdict(),
            "settled": None if outcome.settled is None else msgspec.to_builtins(outcome.settled),
            "kept": None if outcome.kept is None else str(outcome.kept),
            "timeline": outcome.timeline if outcome.failure is not None else [],
        }
        for outcome in outcomes
    ]
    return {
        "ordeals": ordeals,
        "failures": sum(outcome.failure is not None for outcome in outcomes),
        "faults": dict(sorted(faults.items())),
        "seconds": round(seconds, 1),
    }


def _leave(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
