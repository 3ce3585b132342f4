"""What `smrx settle run` says: a line while it runs, and what was proved when it ends."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click
import msgspec

from smrx.cli import output
from smrx.cli.exits import Exit
from smrx.cli.failures import Failure
from smrx.cli.settle_shared import EXITS

if TYPE_CHECKING:
    from rich.text import Text

    from smrx.settlement.follower.runner import Settlement, Summary

#: Nodes say something twice a second.
_SILENT_SECONDS: Final = 2.0


@contextmanager
def live(running: "Settlement") -> Iterator[Callable[[], None] | None]:
    """A line that shows what is going on, on a terminal; nothing in a pipe. Yields what brings it up to date."""
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    if not (console.is_terminal and sys.stdout.isatty()):
        yield None
        return
    with Live(console=console, refresh_per_second=8, transient=True) as shown:
        yield lambda: shown.update(line(running))


def line(running: "Settlement") -> "Text":
    """What is going on, in one line."""
    from rich.text import Text

    feed, sequencer, quorum = running.subscriber.feed_stats, running.subscriber.sequencer, running.quorum
    lag = max(0, sequencer.known - running.sequence)
    by = ",".join(map(str, quorum.attested_by)) or "nobody"
    silence = running.silence()
    parts = [
        f"settled {running.sequence:,}",
        f"lag {lag:,}",
        f"{running.settling.ledger.trades:,} trades",
        f"{running.rate():,.0f} events/s",
        f"gaps healed {feed.gaps_healed} of {feed.gaps}",
        f"attested by {by}",
    ]
    if running.settling.origin is not None:
        parts.insert(1, f"begins after {running.settling.origin.event_sequence:,}")
    if quorum.unverified:
        parts.append(f"unverified {quorum.unverified:,}")
    if running.alarms.count:
        parts.append(f"alarms {running.alarms.count}")
    if silence >= _SILENT_SECONDS:
        parts.append(f"no node heard for {silence:.0f} s")
    return Text(" · ".join(parts), no_wrap=True)


def finish(summary: "Summary", failure: Exception | None, as_json: bool) -> None:
    """Print what was proved, and fail if that was not all."""
    code = Exit.OK if failure is None else EXITS[type(failure).__name__]
    message = str(failure)
    if code is Exit.GAP:
        message += "; a node that was stopped may have them in its journal: --from-log takes them from there"
    if code is Exit.GAP and not summary.sequence:
        message += "; to begin with the state of now instead of event 1, add --join"
    if as_json:
        told = {"error": None if failure is None else message, "exit_code": int(code)}
        output.print_json(msgspec.to_builtins(summary) | told)
    elif code is not Exit.UNAVAILABLE:
        _print(summary, failure)
    if failure is not None:
        raise Failure(code, message) from failure


def _print(s: "Summary", failure: Exception | None) -> None:
    if s.sequence:
        event, command = (s.origin.event_sequence, s.origin.command_sequence) if s.origin is not None else (0, 0)
        if s.sequence > event:
            what = f"events {event + 1:,} to {s.sequence:,}, commands {command + 1:,} to {s.command_sequence:,}"
            click.echo(f"verified   {what}, none missing")
        else:
            click.echo(f"verified   nothing yet: there were no events after {event:,}")
        if s.origin is not None:
            click.echo(f"begins     {s.origin}")
    else:
        click.echo("verified   nothing: there were no events")
    trades = s.trades - (s.origin.match_id if s.origin is not None else 0)
    click.echo(f"settled    {trades:,} trades, {s.trades_written:,} of them in this run, to {', '.join(s.out)}")
    by = f"nodes {', '.join(map(str, s.attested_by))}" if s.attested_by else "nobody"
    click.echo(f"attested   by {by}; {s.balances_compared:,} times their balances were those of the books")
    if s.unverified:
        click.echo(f"unverified {s.unverified:,} events after {s.sequence:,}")
    if s.excluded:
        click.echo(f"excluded   nodes {', '.join(map(str, s.excluded))}, which contradicted the others")
    if s.known_sequence > s.sequence:
        click.echo(f"not seen   events {s.sequence + 1:,} to {s.known_sequence:,}")
    click.echo(
        f"feed       {s.gaps_healed:,} of {s.gaps:,} gaps healed, {s.retransmitted:,} events retransmitted, "
        f"{s.duplicates:,} duplicates dropped, {s.garbage_frames:,} garbage frames ignored"
    )
    click.echo(
        f"order      {s.reordered_frames:,} frames out of order put in their place, {s.duplicate_frames:,} frames sent "
        "twice dropped"
    )
    if failure is None:
        owned = ", ".join(f"{asset} {amount:,}" for asset, amount in s.supply.items()) or "nothing"
        click.echo(f"books      {s.accounts:,} accounts own deposits less withdrawals exactly: {owned} (minimal units)")
    click.echo(f"time       {s.seconds:,.1f} s, {s.events_per_second:,.0f} events/s")
