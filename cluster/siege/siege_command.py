"""Define `python -m cluster siege`: attack clusters, measure an honest client beside each attack, print a table."""

import signal
import sys
import time
from dataclasses import asdict
from types import FrameType
from typing import Any, Final

import click
import msgspec

from cluster.siege.attack_table import ATTACKS
from cluster.siege.siege_run import Plan, Siege
from cluster.siege.siege_verdict import MIB, Measurement
from smrx import compiling
from smrx.cli import output
from smrx.cli.exit_codes import Exit

#: Seconds that an attack takes besides its own: the wait until the nodes have settled, and its share of a start.
_OVERHEAD_SECONDS: Final = 4.0
_MIN_SECONDS: Final = 1.5
#: The share of an attack's time in which the honest client is measured alone.
_ALONE_SHARE: Final = 0.4
_QUICK_MINUTES: Final = 2.0
_COLUMNS: Final = (
    "ATTACK", "P50 ALONE", "P99 ALONE", "P99 BESIDE", "RATIO", "LEADERS", "MIB BEFORE", "DURING", "AFTER", "VERDICT",
)  # fmt: skip


@click.command()
@click.option(
    "--minutes", type=click.FloatRange(min=0.1), default=1.0, show_default=True, help="Approximate total time."
)
@click.option(
    "--attack", "names", type=click.Choice(list(ATTACKS)), multiple=True, help="Only this attack; can be repeated."
)
@click.option(
    "--orders", type=click.IntRange(min=1), help="Orders that rest in a big market.  [default: 100000, or a million]"
)
@click.option("--list", "list_only", is_flag=True, help="List the attacks and their bounds, and run none.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--verbose", is_flag=True, help="Print each attack as it ends, as on a terminal.")
def siege(
    minutes: float, names: tuple[str, ...], orders: int | None, list_only: bool, as_json: bool, verbose: bool
) -> None:
    """Attack clusters of real processes and measure an honest client beside each attack.

    A client places and cancels one order at a time, first alone, then beside each attack. The table shows its latency
    (p50 and p99, in milliseconds), how often the leader changed, and the memory of the node that grew most. An attack
    fails if a bound of it is broken; the bounds of each are in `--list`. With less than two minutes for all attacks, or
    the same share for some, the bounds of time are relaxed and the attacks are smaller; those of memory hold always.
    Exit code 6 means that a bound was broken.

    \b
    Example:
      python -m cluster siege --minutes 10
      python -m cluster siege --attack unread-orders --attack subscriptions --json
    """
    if list_only:
        _list(as_json)
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    compiling.compile_engine(lambda text: click.echo(text, err=True))
    chosen = names or tuple(ATTACKS)
    plan = planned(minutes, len(chosen), orders)
    watched = verbose or sys.stderr.isatty()
    if watched:
        click.echo(f"{len(chosen)} attacks of {plan.seconds:.1f} s each", err=True)
    started = time.monotonic()
    run = Siege(plan, report=(lambda line: click.echo(line, err=True)) if watched else (lambda line: None))
    try:
        found = run.run(chosen)
    except KeyboardInterrupt:
        raise click.ClickException("stopped; all processes have ended") from None
    broken = [measured for measured in found if measured.violations]
    if as_json:
        _print_json({"attacks": [as_dict(measured) for measured in found], "broken": len(broken),
                     "seconds": round(time.monotonic() - started, 1)})  # fmt: skip
    else:
        print_table(found)
        click.echo(f"{len(found)} attacks in {time.monotonic() - started:.0f} s, {len(broken)} broke a bound")
    sys.exit(Exit.DIVERGED if broken else Exit.OK)


def planned(minutes: float, attacks: int, orders: int | None = None) -> Plan:
    """Return how long and how hard to attack in this time."""
    share = 60.0 * minutes / attacks
    seconds = max(_MIN_SECONDS, (share - _OVERHEAD_SECONDS) / (1 + _ALONE_SHARE))
    if share < 60.0 * _QUICK_MINUTES / len(ATTACKS):
        return Plan(
            seconds=seconds,
            alone_seconds=_ALONE_SHARE * seconds,
            big_market=orders or 20_000,
            scale=0.25,
            interval_s=0.02,
            is_loaded=True,
        )
    return Plan(seconds=seconds, alone_seconds=_ALONE_SHARE * seconds, big_market=orders or 1_000_000)


def print_table(found: list[Measurement]) -> None:
    """Print one row for each attack, and below the table what broke which bound."""
    output.print_table(_COLUMNS, map(_row, found), empty="no attacks")
    for measured in found:
        for problem in measured.violations:
            click.echo(f"{measured.attack}: {problem}")


def _row(measured: Measurement) -> list[object]:
    memory, ratio = measured.memory, measured.ratio
    return [
        measured.attack,
        f"{measured.alone.p50_ms:.1f}",
        f"{measured.alone.p99_ms:.1f}",
        f"{measured.beside.p99_ms:.1f}",
        output.NOTHING if ratio is None else f"{ratio:.1f}",
        measured.leader_changes,
        memory.before // MIB,
        memory.during // MIB,
        memory.after // MIB,
        "BROKEN" if measured.violations else "ok",
    ]


def as_dict(measured: Measurement) -> dict[str, Any]:
    """Return a measurement for JSON."""
    return asdict(measured) | {"ratio": measured.ratio}


def _list(as_json: bool) -> None:
    if as_json:
        _print_json(
            {name: {"summary": attack.summary, "bounds": asdict(attack.bounds)} for name, attack in ATTACKS.items()}
        )
        return
    rows = [
        (
            name,
            attack.summary,
            f"{attack.bounds.p99_ratio:g}x or {attack.bounds.p99_floor_ms:g} ms",
            attack.bounds.memory_mib,
            attack.bounds.memory_after_mib,
        )
        for name, attack in ATTACKS.items()
    ]
    output.print_table(("ATTACK", "WHAT IT DOES", "P99", "MIB DURING", "MIB AFTER"), rows, empty="no attacks")


def _print_json(value: dict[str, Any]) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
