"""`smrx market`: set up and halt all instruments together. Parses, calls the client, prints."""

from collections import Counter
from typing import Final

import click

from smrx.cli import options, output, venue_client
from smrx.cli.exit_codes import Exit
from smrx.wire.records import MAX_CAPACITY, MAX_KEPT_ANSWERS


@click.group()
def market() -> None:
    """Set up a market from a file, show it, halt all trading.

    \b
    Example:
      smrx market apply configs/markets/demo.toml
    """


@market.command()
@click.argument("file")
@click.option("--dry-run", is_flag=True, help="Print what would change, and change nothing.")
@options.cluster_option
@options.json_option
def apply(file: str, dry_run: bool, as_json: bool) -> None:
    """Create or update assets, instruments, rules, accounts, limits and deposits from a TOML file.

    Applying the same file again changes nothing. Exits with 4 if a setting differs and cannot be changed; the output
    names it.

    \b
    Example:
      smrx market apply configs/markets/demo.toml --dry-run
      smrx market apply configs/markets/demo.toml
    """
    from smrx.client import market_file

    wanted = market_file.load(file)
    with venue_client.connect() as client:
        found = client.apply_market(wanted, dry_run=dry_run)
    counts = Counter(setting.state for setting in found)
    if as_json:
        output.print_json({"dry_run": dry_run, "counts": counts, "settings": found})
    else:
        rows = [(setting.state, setting.what, setting.detail) for setting in found]
        output.print_table(("STATE", "SETTING", "DETAIL"), rows, empty="the file has no settings")
        click.echo(", ".join(f"{count} {state}" for state, count in counts.items()))
    if counts["differs"]:
        output.exit_with(Exit.REFUSED)


@market.command()
@options.cluster_option
@options.json_option
def show(as_json: bool) -> None:
    """Show the kill switch, the number of assets, accounts, orders and trades, and the instruments.

    \b
    Example:
      smrx market show
    """
    from smrx.wire.codes import InstrumentStatus

    with venue_client.connect() as client:
        status = client.status()
        instruments = client.instruments()
        assets = client.assets()
    listed = [
        {
            "symbol": row.symbol,
            "status": InstrumentStatus(row.status).name,
            "last_price": row.price_text(row.last_price_ticks) if row.last_price_ticks else None,
        }
        for row in instruments
    ]
    shown = {
        "killed": status.killed,
        "assets": len(assets),
        "accounts": status.accounts,
        "open_orders": status.orders_open,
        "trades": status.trades,
        "instruments": listed,
    }
    if as_json:
        output.print_json(shown)
        return
    click.echo("the kill switch is ON: only cancels are accepted" if status.killed else "the kill switch is off")
    click.echo(
        f"{output.count(len(assets), 'asset')}, {output.count(status.accounts, 'account')}, "
        f"{output.count(status.orders_open, 'open order')}, {output.count(status.trades, 'trade')}"
    )
    rows = [output.cells(row) for row in listed]
    output.print_table(("SYMBOL", "STATUS", "LAST PRICE"), rows, empty="no instruments")


@market.command()
@click.option(
    "--session-silence",
    type=click.IntRange(min=1),
    required=True,
    metavar="SECONDS",
    help="A session without open orders of its own ends after so long without a request.",
)
@click.option(
    "--transfer-age", type=click.IntRange(min=1), required=True, metavar="SECONDS", help="Keep transfer ids so long."
)
@click.option(
    "--transfers",
    type=click.IntRange(min=1),
    required=True,
    metavar="NUMBER",
    help="Keep at most so many transfer ids.",
)
@options.cluster_option
@options.json_option
def retention(session_silence: int, transfer_age: int, transfers: int, as_json: bool) -> None:
    """Set how long the exchange keeps sessions that are silent and the ids of transfers.

    A repeated deposit or withdrawal is recognised only while its transfer id is kept.

    \b
    Example:
      smrx market retention --session-silence 86400 --transfer-age 604800 --transfers 1000000
    """
    with venue_client.connect() as client:
        answer = client.set_retention(
            session_silence_s=session_silence, transfer_age_s=transfer_age, transfers=transfers
        )
    text = f"silent sessions end after {session_silence} s; {transfers} transfer ids are kept for {transfer_age} s"
    output.print_answer(answer, text, as_json)


_CAPACITY: Final = click.IntRange(1, MAX_CAPACITY)


@market.command()
@click.option("--accounts", type=_CAPACITY, default=MAX_CAPACITY, show_default=True, help="The venue's own counts.")
@click.option("--orders", type=_CAPACITY, default=MAX_CAPACITY, show_default=True, help="Open orders.")
@click.option(
    "--balances",
    type=_CAPACITY,
    default=MAX_CAPACITY,
    show_default=True,
    help="Pairs of account and asset that had money or an order.",
)
@click.option("--sessions", type=_CAPACITY, default=MAX_CAPACITY, show_default=True, help="Open and closed ones.")
@click.option(
    "--answers",
    type=click.IntRange(1, MAX_KEPT_ANSWERS),
    default=MAX_KEPT_ANSWERS,
    show_default=True,
    help="Answers that all sessions keep together.",
)
@click.option("--instruments", type=_CAPACITY, default=MAX_CAPACITY, show_default=True, help="Instruments.")
@click.option("--assets", type=_CAPACITY, default=MAX_CAPACITY, show_default=True, help="Assets.")
@click.option("--credentials", type=_CAPACITY, default=MAX_CAPACITY, show_default=True, help="Also revoked ones.")
@options.cluster_option
@options.json_option
def capacity(as_json: bool, **numbers: int) -> None:
    """Set how many records of each kind the exchange has at most.

    A command that would add one more is rejected with CAPACITY_REACHED. What is there already stays. The same numbers
    may stand in a market file, in the table [capacity].

    \b
    Example:
      smrx market capacity --orders 2000000 --accounts 100000 --sessions 50000
    """
    with venue_client.connect() as client:
        answer = client.set_capacity(**numbers)
    text = ", ".join(f"{name} {number}" for name, number in numbers.items())
    output.print_answer(answer, f"at most {text}", as_json)


@market.command()
@options.cluster_option
@options.json_option
def kill(as_json: bool) -> None:
    """Turn the kill switch on: the exchange refuses all new and replaced orders and accepts cancels.

    \b
    Example:
      smrx market kill
    """
    with venue_client.connect() as client:
        answer = client.kill()
    output.print_answer(answer, "the kill switch is on", as_json)


@market.command()
@options.cluster_option
@options.json_option
def revive(as_json: bool) -> None:
    """Turn the kill switch off.

    \b
    Example:
      smrx market revive
    """
    with venue_client.connect() as client:
        answer = client.revive()
    output.print_answer(answer, "the kill switch is off", as_json)
