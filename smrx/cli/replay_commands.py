"""`smrx replay`: send a tape to the cluster and check the results. Parses and prints; smrx/tape does the work."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from smrx.cli import options, output, progress
from smrx.cli.cli_errors import CliError
from smrx.cli.exit_codes import Exit
from smrx.tape.tape_error import TapeError
from smrx.tape.tape_market import DEFAULT_MARKET_ID

if TYPE_CHECKING:
    from smrx.tape.convert import Counts
    from smrx.tape.history_check import HistoryCheck
    from smrx.tape.replay import ReplayResult
    from smrx.tape.replay_check import ReplayCheck
    from smrx.tape.tape_file import Tape

#: A feed without an event for this long is an error.
_FEED_TIMEOUT_S = 10.0


@click.command()
@click.argument("tape", type=click.Path(dir_okay=False))
@click.option(
    "--format",
    "tape_format",
    type=click.Choice(["auto", "lobster", "smrx"]),
    default="auto",
    show_default=True,
    help="Format of TAPE: a LOBSTER message file (CSV; plain, gzip, xz or zstd), or a tape of `smrx tape generate`.",
)
@click.option("--orderbook", type=click.Path(dir_okay=False), help="The LOBSTER orderbook file of TAPE.")
@click.option("--verify", is_flag=True, help="Compare the engine with the recording, then the cluster with the engine.")
@click.option(
    "--verify-only",
    is_flag=True,
    help="Compare only the engine, in this process, with the recording; no cluster is needed.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Stop after this many messages (LOBSTER) or commands.")
@click.option("--rate", type=click.FloatRange(min=1), help="Most commands per second.")
@click.option("--symbol", help="Symbol of a LOBSTER file whose name does not start with it.")
@click.option(
    "--market-id",
    type=click.IntRange(min=1),
    default=DEFAULT_MARKET_ID,
    show_default=True,
    help="Base of the instrument and account ids for LOBSTER files; use another number for a second symbol.",
)
@options.cluster_option
@options.json_option
def replay(
    tape: str,
    tape_format: str,
    orderbook: str | None,
    verify: bool,
    verify_only: bool,
    limit: int | None,
    rate: float | None,
    symbol: str | None,
    market_id: int,
    as_json: bool,
) -> None:
    """Send a tape of order flow to the cluster.

    Prints throughput, trades and the final state hash. LOBSTER files may have a header line, blank lines and a seventh
    column. Hidden executions, cross trades (type 6) and trading halts (type 7) are counted, but no command is sent for
    them: the instrument stays open during a halt.

    Exit codes: 2 for an invalid file, 3 if no cluster answers, 4 if
    the exchange refuses commands, 6 if a comparison fails.

    \b
    Example:
      smrx tape generate day.tape --commands 10000
      smrx replay day.tape --verify-only
    """
    lobster = tape_format == "lobster" or (tape_format == "auto" and not _is_smrx(tape))
    if not lobster and (orderbook or symbol):
        raise CliError(Exit.USAGE, f"{tape}: --orderbook and --symbol are only for LOBSTER files")
    report: dict[str, Any] = {}
    try:
        if lobster:
            played = _lobster(tape, orderbook, limit, market_id, symbol, verify or verify_only, as_json, report)
        else:
            played = _smrx(tape, limit, verify_only, as_json, report)
    except TapeError as error:
        raise CliError(Exit.USAGE, str(error)) from None
    if not verify_only:
        _through_cluster(played, rate, verify, as_json, report)
    if as_json:
        output.print_json(report)
    _exit(report)


def _lobster(
    messages: str,
    orderbook: str | None,
    limit: int | None,
    market_id: int,
    symbol: str | None,
    prove: bool,
    as_json: bool,
    report: dict[str, Any],
) -> "Tape":
    """Return the tape of LOBSTER files; with `prove`, compare the engine with them."""
    from smrx.tape import convert, lobster
    from smrx.tape.history_check import check_history

    recording = lobster.read(messages, orderbook, limit)
    plan = convert.convert(recording, market_id, symbol)
    if orderbook is None and not as_json:
        click.echo(
            "Without --orderbook no price levels can be compared, and levels that come into view are unknown: "
            f"{plan.counts.unknown} messages name unknown orders and are skipped.",
            err=True,
        )
    if plan.conflicts and not prove:
        row, what = plan.conflicts[0]
        raise TapeError(
            f"{messages}: line {plan.line(row)}: {what} ({output.count(len(plan.conflicts), 'message')} like this)"
        )
    if prove:
        with progress.count_bar("verifying", len(recording.messages)) as show:
            verdict = check_history(plan, progress=show)
        report["history"] = msgspec.to_builtins(verdict) | {"verified": verdict.verified}
        if not as_json:
            _print_verdict(verdict)
    else:
        report["recording"] = msgspec.to_builtins(plan.counts)
        if not as_json:
            _print_recording(plan.counts)
    return plan.tape()


def _smrx(tape: str, limit: int | None, prove: bool, as_json: bool, report: dict[str, Any]) -> "Tape":
    """Return the tape of a file; with `prove`, compare the engine with the trades the tape records."""
    from smrx.tape import replay_check, tape_file

    found = tape_file.read(tape).first(limit)
    if not prove:
        return found
    verdict = replay_check.run_engine(found)
    report["engine"] = msgspec.to_builtins(verdict) | {"verified": verdict.verified}
    if not as_json:
        expected = "" if verdict.trades_expected is None else f" ({verdict.trades_expected} expected)"
        click.echo(
            f"engine      {verdict.commands} commands, {verdict.refused} refused, {verdict.trades} trades{expected}"
        )
        click.echo(f"state hash  {verdict.state_hash}")
        click.echo(
            "verified    the engine gave the results recorded in the tape" if verdict.verified else _not_verified(1)
        )
    return found


def _through_cluster(tape: "Tape", rate: float | None, prove: bool, as_json: bool, report: dict[str, Any]) -> None:
    """Send the tape and print the results; with `prove`, compare them with a single engine."""
    from smrx.cli import venue_client
    from smrx.tape import replay

    with venue_client.connect(bulk=True) as client:
        try:
            with progress.count_bar("replaying", len(tape.commands)) as show:
                played = replay.play(client, tape, rate=rate, progress=show)
        except replay.SetupRefused as error:
            raise CliError(Exit.REFUSED, f"{error}; choose unused ids with --market-id") from None
        status = client.status()
    summary = played.summary
    report["cluster"] = msgspec.to_builtins(summary) | {
        "sequence": status.sequence,
        "state_hash": output.hex_hash(status.state_hash),
    }
    if not as_json:
        click.echo(
            f"cluster     {summary.commands} commands in {summary.seconds:.2f} s, "
            f"{summary.commands_per_second} per second"
        )
        click.echo(
            f"            {summary.acknowledged} accepted, {summary.refused} refused, {summary.trades} trades"
            + (f", {summary.unknown} acknowledged without details" if summary.unknown else "")
        )
        if summary.first_refusal:
            click.echo(f"            first refusal: {summary.first_refusal}")
        click.echo(f"state hash  {output.hex_hash(status.state_hash)} at command {status.sequence}")
    if prove:
        found = _prove(tape, played)
        report["proof"] = msgspec.to_builtins(found) | {"verified": found.verified}
        if not as_json:
            _print_proof(found)


def _prove(tape: "Tape", played: "ReplayResult") -> "ReplayCheck":
    """Compare the outcomes of the cluster and the events of its feed with a single engine."""
    from smrx.feed.feed_errors import FeedConflict, GapUnfillable
    from smrx.feed.subscriber import Subscriber
    from smrx.tape import replay_check

    expected = replay_check.run_reference(tape)
    try:
        first = replay_check.first_event(played.outcomes)
        with Subscriber.from_config(options.config(), from_sequence=first, key=options.key_path()) as subscriber:
            events = replay_check.collect(subscriber, played.outcomes, _FEED_TIMEOUT_S)
    except GapUnfillable as error:
        raise CliError(Exit.GAP, f"the nodes no longer hold all events of the tape: {error}") from None
    except FeedConflict as error:
        raise CliError(Exit.DIVERGED, str(error)) from None
    except replay_check.FeedSilent as error:
        raise CliError(Exit.UNAVAILABLE, f"no events from the feed: {error}") from None
    return replay_check.compare(expected, played.outcomes, events)


def _print_recording(counts: "Counts") -> None:
    """Print what the messages are, and what is done with those for which no command is sent."""
    click.echo(
        f"recording   {counts.messages} messages, {counts.executions} executions, {counts.skipped} outside the book"
    )
    if counts.hidden:
        click.echo(f"            {output.count(counts.hidden, 'hidden execution')} (type 5): not in the book, not sent")
    if counts.cross_trades:
        click.echo(
            f"            {output.count(counts.cross_trades, 'cross trade')} (type 6): executed in an auction, not sent"
        )
    if counts.halts:
        click.echo(
            f"            {output.count(counts.halts, 'halt message')} (type 7: halt, quoting or trading resumes): not "
            "sent, the instrument stays open"
        )


def _print_verdict(verdict: "HistoryCheck") -> None:
    counts = verdict.counts
    _print_recording(counts)
    click.echo(
        f"            {verdict.reproduced} reproduced: {verdict.maker_matched} against the recorded order, "
        f"{verdict.anonymous} against orders without an id, {verdict.undecidable} where the order of arrival is unknown"
    )
    if verdict.unknown:
        click.echo(f"            {verdict.unknown} of unknown orders, skipped")
    if verdict.rows:
        click.echo(
            f"levels      {verdict.rows_equal} of {verdict.rows} rows equal "
            f"({counts.adoptions} levels added from the orderbook file, {counts.evictions} removed)"
        )
    click.echo(f"exceptions  {len(verdict.exceptions)} executions in the recording violate time priority")
    for text in verdict.exceptions:
        click.echo(f"            {text}")
    click.echo(f"engine      {verdict.commands} commands, {verdict.trades} trades, state hash {verdict.state_hash}")
    for text in verdict.failures:
        click.echo(f"FAILED      {text}")
    what = "the engine reproduced the recording" if verdict.rows else "all executions of known orders were reproduced"
    click.echo(f"verified    {what}" if verdict.verified else _not_verified(verdict.failure_count))


def _print_proof(found: "ReplayCheck") -> None:
    click.echo(
        f"compared    {found.outcomes_compared} outcomes and {found.events_compared} events "
        f"({found.trades_compared} trades) with a single engine"
    )
    for text in found.differences:
        click.echo(f"FAILED      {text}")
    click.echo(
        "verified    the cluster gave the same results as a single engine"
        if found.verified
        else _not_verified(found.difference_count)
    )


def _not_verified(count: int) -> str:
    return f"NOT VERIFIED  {count} difference{'s' if count != 1 else ''}"


def _exit(report: dict[str, Any]) -> None:
    if not all(part.get("verified", True) for part in report.values()):
        output.exit_with(Exit.DIVERGED)
    if report.get("cluster", {}).get("refused"):
        output.exit_with(Exit.REFUSED)


def _is_smrx(tape: str) -> bool:
    from smrx.tape.tape_file import MAGIC

    try:
        with Path(tape).open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        # The reader of the file reports the error.
        return False
