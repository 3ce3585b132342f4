"""`smrx replay`: order flow through a cluster, and the proof of what came of it. The work is in smrx/tape."""

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
    from smrx.tape.history_check import Verdict
    from smrx.tape.replay import Played
    from smrx.tape.replay_proof import Proof
    from smrx.tape.tape_file import Tape

#: Seconds without an event after which the feed counts as silent.
_FEED_PATIENCE_S = 10.0


@click.command()
@click.argument("tape", type=click.Path(dir_okay=False))
@click.option(
    "--format",
    "tape_format",
    type=click.Choice(["auto", "lobster", "smrx"]),
    default="auto",
    show_default=True,
    help="What TAPE is: a LOBSTER message file (CSV, plain or .gz), or a tape of `smrx tape generate`.",
)
@click.option("--orderbook", type=click.Path(dir_okay=False), help="The LOBSTER orderbook file that belongs to TAPE.")
@click.option(
    "--verify", is_flag=True, help="Prove it: the engine against history, then the cluster against the engine."
)
@click.option("--verify-only", is_flag=True, help="Prove the engine in this process; no cluster is needed.")
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many messages (LOBSTER) or commands.")
@click.option("--rate", type=click.FloatRange(min=1), help="Commands a second at most.")
@click.option("--symbol", help="Ticker of a LOBSTER file whose name does not begin with it.")
@click.option(
    "--market-id",
    type=click.IntRange(min=1),
    default=DEFAULT_MARKET_ID,
    show_default=True,
    help="Number of instrument, share and accounts for LOBSTER files; take another for a second share.",
)
@options.config_option
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
    """Feed a tape of recorded order flow through the cluster.

    Prints throughput, trades and the state hash at the end. Exit codes: 2 for a file that cannot be used, 3 if no
    cluster answers, 4 if it refuses commands, 6 if a proof fails.

    \b
    Example:
      smrx tape generate day.tape --commands 10000
      smrx replay day.tape --verify-only
    """
    lobster = tape_format == "lobster" or (tape_format == "auto" and not _is_smrx(tape))
    if not lobster and (orderbook or symbol):
        raise CliError(Exit.USAGE, f"{tape}: expected --orderbook and --symbol with LOBSTER files only")
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
    """The tape of LOBSTER files, the engine proved against them if asked for."""
    from smrx.tape import convert, lobster
    from smrx.tape import history_check as verify

    recording = lobster.read(messages, orderbook, limit)
    plan = convert.convert(recording, market_id, symbol)
    if orderbook is None and not as_json:
        click.echo(
            "Without --orderbook levels that come into view cannot be adopted, and no levels can be compared: "
            f"{plan.counts.unknown} messages name orders never seen and are left out.",
            err=True,
        )
    if plan.conflicts and not prove:
        row, what = plan.conflicts[0]
        raise TapeError(f"{messages}: line {row + 1}: {what} ({len(plan.conflicts)} such messages)")
    if prove:
        with progress.count_bar("verifying", len(recording.messages)) as show:
            verdict = verify.verify(plan, progress=show)
        report["history"] = msgspec.to_builtins(verdict) | {"proved": verdict.proved}
        if not as_json:
            _print_verdict(verdict)
    return plan.tape()


def _smrx(tape: str, limit: int | None, prove: bool, as_json: bool, report: dict[str, Any]) -> "Tape":
    """A tape file; with `prove`, run through the engine and compared with what its generator knows."""
    from smrx.tape import replay_proof, tape_file

    found = tape_file.read(tape).first(limit)
    if not prove:
        return found
    verdict = replay_proof.alone(found)
    report["engine"] = msgspec.to_builtins(verdict) | {"proved": verdict.proved}
    if not as_json:
        expected = "" if verdict.trades_expected is None else f" ({verdict.trades_expected} expected)"
        click.echo(
            f"engine      {verdict.commands} commands, {verdict.refused} refused, {verdict.trades} trades{expected}"
        )
        click.echo(f"state hash  {verdict.state_hash}")
        click.echo("proved      the engine did what the tape says" if verdict.proved else _not_proved(1))
    return found


def _through_cluster(tape: "Tape", rate: float | None, prove: bool, as_json: bool, report: dict[str, Any]) -> None:
    """Send the tape, print what came back, and compare it with the engine alone if asked for."""
    from smrx.cli import venue_client
    from smrx.tape import replay

    with venue_client.connect() as client:
        try:
            with progress.count_bar("replaying", len(tape.commands)) as show:
                played = replay.play(client, tape, rate=rate, progress=show)
        except replay.SetupRefused as error:
            raise CliError(Exit.REFUSED, f"{error}; --market-id gives the tape ids of its own") from None
        status = client.status()
    summary = played.summary
    report["cluster"] = msgspec.to_builtins(summary) | {
        "sequence": status.sequence,
        "state_hash": output.hex_hash(status.state_hash),
    }
    if not as_json:
        click.echo(
            f"cluster     {summary.commands} commands in {summary.seconds:.2f} s, "
            f"{summary.commands_per_second} a second"
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
        report["proof"] = msgspec.to_builtins(found) | {"proved": found.proved}
        if not as_json:
            _print_proof(found)


def _prove(tape: "Tape", played: "Played") -> "Proof":
    """Compare the cluster's outcomes, and its events by the feed, with the engine alone."""
    from smrx.feed.feed_errors import FeedConflict, GapUnfillable
    from smrx.feed.subscriber import Subscriber
    from smrx.tape import replay_proof

    expected = replay_proof.reference(tape)
    try:
        first = replay_proof.first_event(played.outcomes)
        with Subscriber.from_config(options.config(), from_sequence=first) as subscriber:
            events = replay_proof.collect(subscriber, played.outcomes, _FEED_PATIENCE_S)
    except GapUnfillable as error:
        raise CliError(Exit.GAP, f"the events of the tape are not all held any more: {error}") from None
    except FeedConflict as error:
        raise CliError(Exit.DIVERGED, str(error)) from None
    except replay_proof.FeedSilent as error:
        raise CliError(Exit.UNAVAILABLE, f"the event feed is silent: {error}") from None
    return replay_proof.compare(expected, played.outcomes, events)


def _print_verdict(verdict: "Verdict") -> None:
    counts = verdict.counts
    click.echo(
        f"history     {counts.messages} messages, {counts.executions} executions, {counts.skipped} outside the book"
    )
    click.echo(
        f"            {verdict.reproduced} reproduced: {verdict.maker_matched} against the order named, "
        f"{verdict.anonymous} against orders never named, {verdict.undecidable} where the order of arrival is unknown"
    )
    if verdict.unknown:
        click.echo(f"            {verdict.unknown} of orders never seen, left out")
    if verdict.rows:
        click.echo(
            f"levels      {verdict.rows_equal} of {verdict.rows} rows equal "
            f"({counts.adoptions} levels adopted, {counts.evictions} cut)"
        )
    click.echo(f"exceptions  {len(verdict.exceptions)} against time priority in the recording")
    for text in verdict.exceptions:
        click.echo(f"            {text}")
    click.echo(f"engine      {verdict.commands} commands, {verdict.trades} trades, state hash {verdict.state_hash}")
    for text in verdict.failures:
        click.echo(f"FAILED      {text}")
    what = "the engine did what history did" if verdict.rows else "every execution of a known order was reproduced"
    click.echo(f"proved      {what}" if verdict.proved else _not_proved(verdict.failure_count))


def _print_proof(found: "Proof") -> None:
    click.echo(
        f"compared    {found.outcomes_compared} outcomes and {found.events_compared} events "
        f"({found.trades_compared} trades) with one engine alone"
    )
    for text in found.differences:
        click.echo(f"FAILED      {text}")
    click.echo(
        "proved      the cluster did what one engine does" if found.proved else _not_proved(found.difference_count)
    )


def _not_proved(count: int) -> str:
    return f"NOT PROVED  {count} difference{'s' if count != 1 else ''}"


def _exit(report: dict[str, Any]) -> None:
    if not all(part.get("proved", True) for part in report.values()):
        output.exit_with(Exit.DIVERGED)
    if report.get("cluster", {}).get("refused"):
        output.exit_with(Exit.REFUSED)


def _is_smrx(tape: str) -> bool:
    from smrx.tape.tape_file import MAGIC

    try:
        with Path(tape).open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        # Said with its name and reason by whoever reads it.
        return False
