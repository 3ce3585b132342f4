"""`smrx history`: show orders, one order's life and fills from an order history. Parses, reads, prints."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from smrx.cli import options, output
from smrx.cli.cli_errors import CliError
from smrx.cli.exit_codes import Exit
from smrx.cli.settle_shared import config_with_history
from smrx.config import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable

    from smrx.history.history_reader import HistoryReader
    from smrx.history.order_views import FillView, OrderView, UpdateView

_POLL_SECONDS: Final = 0.02


def _history_options(command: "Callable[..., None]") -> "Callable[..., None]":
    for option in (
        click.option("--history", metavar="DIR", help="The directory of the history, instead of the configured one."),
        click.option(
            "--min-sequence",
            type=click.IntRange(min=1),
            metavar="N",
            help="Wait until the history holds event N, such as that of an order just placed.",
        ),
        options.timeout_option(10.0, "Seconds to wait for --min-sequence."),
        options.config_option,
        options.json_option,
    ):
        command = option(command)
    return command


def _page_options(command: "Callable[..., None]") -> "Callable[..., None]":
    for option in (
        click.option("--account", type=click.IntRange(min=0), required=True, help="The account that owns the orders."),
        click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="Rows of a page."),
        click.option("--before", type=click.IntRange(min=1), metavar="CURSOR", help="Continue before this event."),
    ):
        command = option(command)
    return command


class _Statuses(click.ParamType):  # type: ignore[type-arg,unused-ignore] # generic only in click's newest stubs
    """Names of statuses, separated by commas."""

    name = "statuses"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> frozenset[Any]:
        from smrx.history.order_status import LABELS

        if isinstance(value, frozenset):
            return value
        known = {label.lower(): status for label, status in LABELS.items()}
        names = str(value).split(",")
        for name in names:
            if name.strip().lower() not in known:
                self.fail(f"expected statuses of {', '.join(LABELS)}, found {name!r}", param, ctx)
        return frozenset(known[name.strip().lower()] for name in names)


@click.group()
def history() -> None:
    """Show the life of every order, as `smrx settle run --history` stored it.

    Answers are true at the event that they name. No cluster is needed.

    \b
    Example:
      smrx settle run --history history --idle 5
      smrx history orders --history settled/history --account 7
    """


@history.command()
@_page_options
@click.option("--status", "statuses", type=_Statuses(), help="Only orders of these statuses, such as New,Filled.")
@click.option("--symbol", help="Only orders in this instrument.")
@_history_options
def orders(
    account: int,
    limit: int,
    before: int | None,
    statuses: frozenset[Any] | None,
    symbol: str | None,
    history: str | None,
    min_sequence: int | None,
    timeout: float,
    as_json: bool,
) -> None:
    """List the orders of an account, the newest first.

    --before continues the list: give it the cursor of the last order of the page.

    \b
    Example:
      smrx history orders --account 7 --status New,PartiallyFilled
    """
    from smrx.history.order_views import OrderViews

    with _opened(history, min_sequence, timeout) as reader:
        page = OrderViews(reader).orders(
            account, statuses=statuses or frozenset(), symbol=symbol, before=before, limit=limit
        )
        if as_json:
            output.print_json({"sequence": reader.sequence, "orders": page.orders, "next": page.next})
            return
    columns = ("ORDER", "CLIENT ORDER", "SYMBOL", "SIDE", "TYPE", "STATUS", "PRICE", "QUANTITY", "FILLED", "AVERAGE",
               "FEES", "CREATED", "CURSOR")  # fmt: skip
    output.print_table(columns, map(_order_cells, page.orders), empty="no orders")
    if page.next is not None:
        click.echo(f"the list continues: --before {page.next}")


@history.command()
@click.argument("order_id", type=click.IntRange(min=1), required=False)
@click.option("--client-order-id", type=options.ClientOrderId(), help="Id of the order, chosen by its owner.")
@click.option("--account", type=click.IntRange(min=0), help="The owner, with --client-order-id.")
@_history_options
def order(
    order_id: int | None,
    client_order_id: str | None,
    account: int | None,
    history: str | None,
    min_sequence: int | None,
    timeout: float,
    as_json: bool,
) -> None:
    """Show one order and every step of its life.

    An order is named by its id, or by --account and --client-order-id; of several orders with that id the newest is
    shown.

    \b
    Example:
      smrx history order 118
      smrx history order --account 7 --client-order-id quote-1
    """
    from smrx.history.order_views import OrderViews

    if (order_id is None) == (client_order_id is None) or (client_order_id is None) != (account is None):
        raise click.UsageError("name the order by its id, or by --account and --client-order-id")
    with _opened(history, min_sequence, timeout) as reader:
        views = OrderViews(reader)
        if order_id is None:
            assert account is not None
            ids = views.by_client_order_id(account, client_order_id or "")
            order_id = ids[-1] if ids else 0
        found = views.timeline(order_id) if order_id else None
        if found is None:
            raise CliError(
                Exit.REFUSED,
                f"the history up to event {reader.sequence:,} has no such order; is --min-sequence needed?",
            )
        shown, steps = found
        if as_json:
            output.print_json({"sequence": reader.sequence, "order": shown, "timeline": steps})
            return
    for name, value in msgspec.structs.asdict(shown).items():
        if value not in (None, ""):
            click.echo(f"{name.replace('_', ' '):<16}{value}")
    click.echo()
    columns = ("EVENT", "TIME", "KIND", "STATUS", "PRICE", "QUANTITY", "FILLED", "FILL", "REASON")
    output.print_table(columns, map(_step_cells, steps), empty="")


@history.command()
@_page_options
@_history_options
def fills(
    account: int,
    limit: int,
    before: int | None,
    history: str | None,
    min_sequence: int | None,
    timeout: float,
    as_json: bool,
) -> None:
    """List the fills of an account, the newest first.

    \b
    Example:
      smrx history fills --account 7 --limit 10
    """
    from smrx.history.order_views import OrderViews

    with _opened(history, min_sequence, timeout) as reader:
        found = OrderViews(reader).fills(account, before=before, limit=limit)
        if as_json:
            cursor = found[-1].event_sequence if len(found) == limit else None
            output.print_json({"sequence": reader.sequence, "fills": found, "next": cursor})
            return
    columns = ("EVENT", "TIME", "TRADE", "ORDER", "SYMBOL", "SIDE", "PRICE", "QUANTITY", "FEE", "LIQUIDITY")
    output.print_table(columns, map(_fill_cells, found), empty="no fills")


@history.command()
@click.option("--history", metavar="DIR", help="The directory of the history, instead of the configured one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Loopback address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=7080, show_default=True, help="0: any free port.")
@options.config_option
def serve(history: str | None, host: str, port: int) -> None:
    """Answer queries of the history over HTTP, on this machine only: every process that can connect sees every order.

    /openapi.json describes the paths. Needs: pip install smrx[http].

    \b
    Example:
      smrx history serve --history settled/history
      curl 'http://127.0.0.1:7080/v1/orders?account=7&status=New,PartiallyFilled'
    """
    if not is_loopback(host):
        raise click.BadParameter(f"expected a loopback address, found {host}", param_hint="--host")
    place = _place(history)
    try:
        import uvicorn

        from smrx.history.history_http import HistoryService
    except ModuleNotFoundError as error:
        raise CliError(
            Exit.USAGE, f"the package {error.name} is not installed; install it with: pip install smrx[http]"
        ) from None
    service = HistoryService(place)
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), port))
        listener.listen(128)
    except OSError as error:
        raise CliError(Exit.RESOURCE, f"cannot listen on {host}:{port}: {error.strerror}") from None
    shown = f"[{host}]" if ":" in host else host
    click.echo(f"order history of {place} on http://{shown}:{listener.getsockname()[1]}", err=True)
    settings = uvicorn.Config(service.application(), log_level="warning", access_log=False, lifespan="off")
    try:
        uvicorn.Server(settings).run(sockets=[listener])
    finally:
        service.close()


@contextmanager
def _opened(directory: str | None, min_sequence: int | None, timeout: float) -> "Iterator[HistoryReader]":
    """Open the history once it holds event `min_sequence`; raises CliError if it does not in time."""
    from smrx.history.history_reader import HistoryReader
    from smrx.sinks.sink_errors import SinkError, SinkMismatch

    place = _place(directory)
    deadline = time.monotonic() + timeout
    while True:
        is_late = min_sequence is None or time.monotonic() > deadline
        with ExitStack() as stack:
            held = 0
            try:
                reader = stack.enter_context(HistoryReader(place))
                held = reader.sequence
            except SinkError as error:
                # Its first commit may be still to come.
                if is_late:
                    raise CliError(Exit.SINK, str(error)) from error
            except SinkMismatch as error:
                raise CliError(Exit.SINK, str(error)) from error
            if held >= (min_sequence or 0):
                yield reader
                return
        if is_late:
            found = f"the history holds events up to {held:,} after {timeout:g} s, not yet event {min_sequence:,}"
            raise CliError(Exit.UNAVAILABLE, f"{found}; is `smrx settle run --history` running?")
        time.sleep(_POLL_SECONDS)


def _place(directory: str | None) -> Path:
    """Return the directory of the history; raises UsageError if none is named."""
    place = config_with_history(options.config(), directory).settlement.history_path
    if place is None:
        raise click.UsageError("the configuration has no settlement.history; name the directory with --history")
    return place


def _order_cells(row: "OrderView") -> list[object]:
    return [
        *(row.order_id or output.NOTHING, row.client_order_id or output.NOTHING, row.symbol, row.side, row.order_type),
        *(row.status, row.price or output.NOTHING, row.quantity or row.budget, row.filled),
        *(row.average_price or output.NOTHING, row.fees, row.created, row.cursor),
    ]


def _step_cells(row: "UpdateView") -> list[object]:
    fill = output.NOTHING if row.fill is None else f"{row.fill.quantity} at {row.fill.price}, {row.fill.liquidity}"
    return [
        *(row.event_sequence, row.time, row.event, row.status, row.price or output.NOTHING),
        *(row.quantity or output.NOTHING, row.filled, fill, row.reason or output.NOTHING),
    ]


def _fill_cells(row: "FillView") -> list[object]:
    return [
        *(row.event_sequence, row.time, row.match_id, row.order_id, row.symbol, row.side),
        *(row.price, row.quantity, row.fee, row.liquidity),
    ]
