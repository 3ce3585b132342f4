"""Serve order history over HTTP: JSON answers, each with the event sequence at which it is true.

Owns the application (Starlette), the parameters of each path and their description as OpenAPI. Errors are problem+json
(RFC 9457). One view of the history is kept, and moved on when something was committed. Called by `smrx history serve`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from smrx.history.history_reader import HistoryReader
from smrx.history.order_status import LABELS
from smrx.history.order_views import FillView, OrderView, OrderViews, UpdateView
from smrx.sinks.sink_errors import SinkFault
from smrx.wire.records import CLIENT_ORDER_ID_SIZE

#: How long a request waits for the history to hold `min_sequence`.
WAIT_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.005
#: Bytes of a query that are looked at; longer ones are refused.
MAX_QUERY_BYTES: Final = 4096

_Sequence = Annotated[int, Meta(ge=1, le=(1 << 63) - 1)]
_Account = Annotated[int, Meta(ge=0, lt=1 << 32)]
_Limit = Annotated[int, Meta(ge=1, le=1000)]


class Wait(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What every query may have."""

    #: Answer once the history holds this event.
    min_sequence: _Sequence | None = None


class OrdersQuery(Wait, kw_only=True, forbid_unknown_fields=True):
    """Orders of an account, newest first."""

    account: _Account
    #: Names of statuses, separated by commas.
    status: str = ""
    symbol: str | None = None
    #: The `next` of the page before.
    before: _Sequence | None = None
    limit: _Limit = 50


class FillsQuery(Wait, kw_only=True, forbid_unknown_fields=True):
    """Fills of an account, newest first."""

    account: _Account
    before: _Sequence | None = None
    limit: _Limit = 50


class ClientOrderQuery(Wait, kw_only=True, forbid_unknown_fields=True):
    """The newest order of an account with a client order id."""

    account: _Account
    client_order_id: Annotated[str, Meta(min_length=1, max_length=CLIENT_ORDER_ID_SIZE)]


class OrdersAnswer(msgspec.Struct):
    """A page of orders, true at an event."""

    sequence: int
    orders: list[OrderView]
    next: int | None


class OrderAnswer(msgspec.Struct):
    """An order and every step of its life, true at an event."""

    sequence: int
    order: OrderView
    timeline: list[UpdateView]


class FillsAnswer(msgspec.Struct):
    """A page of fills, true at an event."""

    sequence: int
    fills: list[FillView]
    next: int | None


class StatusAnswer(msgspec.Struct):
    """What the history holds."""

    sequence: int
    orders: int
    updates: int
    fills: int


class Problem(msgspec.Struct, omit_defaults=True):
    """Why a request has no answer (RFC 9457)."""

    title: str
    status: int
    detail: str
    type: str = "about:blank"


#: Path -> what it answers, its query and its answer; the description is made of it.
PATHS: Final[dict[str, tuple[str, type[Wait], type[msgspec.Struct]]]] = {
    "/v1/status": ("What the history holds.", Wait, StatusAnswer),
    "/v1/orders": ("The orders of an account, newest first.", OrdersQuery, OrdersAnswer),
    "/v1/orders/by-client-order-id": ("The newest order with a client order id.", ClientOrderQuery, OrderAnswer),
    "/v1/orders/{order_id}": ("One order and every step of its life.", Wait, OrderAnswer),
    "/v1/fills": ("The fills of an account, newest first.", FillsQuery, FillsAnswer),
}


class HistoryService:
    """Answers requests from one history."""

    def __init__(self, path: Path, wait_seconds: float = WAIT_SECONDS) -> None:
        """Read the history in a directory, which may come to be later."""
        self._path = path
        self._wait_seconds = wait_seconds
        self._reader: HistoryReader | None = None

    def application(self) -> Starlette:
        """Return the application."""
        answers: dict[str, Callable[[OrderViews, HistoryReader, Any, Request], msgspec.Struct]] = {
            "/v1/status": self._status,
            "/v1/orders": self._orders,
            "/v1/orders/by-client-order-id": self._by_client_order_id,
            "/v1/orders/{order_id}": self._order,
            "/v1/fills": self._fills,
        }
        routes = [
            Route(path.replace("{order_id}", "{order_id:int}"), self._handler(PATHS[path][1], answer))
            for path, answer in answers.items()
        ]
        routes.append(Route("/openapi.json", _description))
        handlers: dict[Any, Any] = {HTTPException: _problem, Exception: _problem}
        # A name that resolves to loopback must not let a web page read the answers.
        local = Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"])
        return Starlette(routes=routes, exception_handlers=handlers, middleware=[local])

    def close(self) -> None:
        """Close the view of the history."""
        if self._reader is not None:
            self._reader.close()
        self._reader = None

    def _handler(
        self, query: type[Wait], answer: Callable[[OrderViews, HistoryReader, Any, Request], msgspec.Struct]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            asked = _query(request, query)
            reader = await self._at(asked.min_sequence or 0)
            return _json(answer(OrderViews(reader), reader, asked, request))

        return handle

    async def _at(self, sequence: int) -> HistoryReader:
        """Return a view that holds an event; raises HTTPException 503 if there is none in time."""
        deadline = time.monotonic() + self._wait_seconds
        while True:
            problem = None
            try:
                if self._reader is None:
                    self._reader = HistoryReader(self._path)
                else:
                    self._reader.refresh()
                if self._reader.sequence >= sequence:
                    return self._reader
                problem = f"the history holds events up to {self._reader.sequence}, not yet {sequence}"
            except SinkFault as error:
                self.close()
                problem = str(error)
            if not sequence or time.monotonic() > deadline:
                raise HTTPException(503, f"{problem}; is `smrx settle run --history` running?")
            await asyncio.sleep(_POLL_SECONDS)

    def _status(self, views: OrderViews, reader: HistoryReader, query: Wait, request: Request) -> StatusAnswer:
        return StatusAnswer(reader.sequence, *reader.counts)

    def _orders(self, views: OrderViews, reader: HistoryReader, query: OrdersQuery, request: Request) -> OrdersAnswer:
        names = [name for name in query.status.split(",") if name]
        for name in names:
            if name not in LABELS:
                raise HTTPException(400, f"status: expected names of {', '.join(LABELS)}, found {name!r}")
        page = views.orders(
            query.account,
            statuses=frozenset(LABELS[name] for name in names),
            symbol=query.symbol,
            before=query.before,
            limit=query.limit,
        )
        return OrdersAnswer(reader.sequence, page.orders, page.next)

    def _order(self, views: OrderViews, reader: HistoryReader, query: Wait, request: Request) -> OrderAnswer:
        return _life(views, reader, request.path_params["order_id"])

    def _by_client_order_id(
        self, views: OrderViews, reader: HistoryReader, query: ClientOrderQuery, request: Request
    ) -> OrderAnswer:
        ids = views.by_client_order_id(query.account, query.client_order_id)
        return _life(views, reader, ids[-1] if ids else 0)

    def _fills(self, views: OrderViews, reader: HistoryReader, query: FillsQuery, request: Request) -> FillsAnswer:
        found = views.fills(query.account, before=query.before, limit=query.limit)
        return FillsAnswer(reader.sequence, found, found[-1].event_sequence if len(found) == query.limit else None)


def description() -> dict[str, Any]:
    """Return the OpenAPI description of all paths."""
    answers = [answer for _, _, answer in PATHS.values()]
    _, components = msgspec.json.schema_components([*answers, Problem], ref_template="#/components/schemas/{name}")
    paths = {}
    for path, (summary, query, answer) in PATHS.items():
        parameters: list[dict[str, Any]] = [
            {"name": field.name, "in": "query", "required": field.required, "schema": msgspec.json.schema(field.type)}
            for field in msgspec.structs.fields(query)
        ]
        if "{order_id}" in path:
            parameters.append(
                {"name": "order_id", "in": "path", "required": True, "schema": {"type": "integer", "minimum": 1}}
            )
        found = {"application/json": {"schema": {"$ref": f"#/components/schemas/{answer.__name__}"}}}
        failed = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
        paths[path] = {
            "get": {
                "summary": summary,
                "parameters": parameters,
                "responses": {
                    "200": {"description": "found", "content": found},
                    "default": {"description": "no answer", "content": failed},
                },
            }
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "smrx order history", "version": version("smrx")},
        "paths": paths,
        "components": {"schemas": components},
    }


def _life(views: OrderViews, reader: HistoryReader, order_id: int) -> OrderAnswer:
    found = views.timeline(order_id) if 0 < order_id < 1 << 63 else None
    if found is None:
        raise HTTPException(404, f"the history up to event {reader.sequence} has no such order")
    return OrderAnswer(reader.sequence, *found)


def _query(request: Request, kind: type[Wait]) -> Wait:
    """Return the parameters of a request; raises HTTPException 400 and 414."""
    if len(request.url.query) > MAX_QUERY_BYTES:
        raise HTTPException(414, f"expected at most {MAX_QUERY_BYTES} bytes of parameters")
    given = request.query_params.multi_items()
    if len(dict(given)) != len(given):
        raise HTTPException(400, "expected each parameter once")
    try:
        return msgspec.convert(dict(given), kind, strict=False)
    except msgspec.ValidationError as error:
        raise HTTPException(400, f"parameters: {error}") from None


def _json(answer: msgspec.Struct, status: int = 200, kind: str = "application/json") -> Response:
    return Response(msgspec.json.encode(answer), status, media_type=kind)


async def _description(request: Request) -> Response:
    return Response(msgspec.json.encode(description()), media_type="application/json")


async def _problem(request: Request, error: Exception) -> Response:
    """Answer with what is wrong; of a fault of smrx itself only that there is one, the log has the rest."""
    status, detail = (error.status_code, error.detail) if isinstance(error, HTTPException) else (500, "internal error")
    titles = {400: "Invalid parameters", 404: "Not found", 405: "Only GET is allowed", 503: "Not there yet"}
    problem = Problem(titles.get(status, "No answer"), status, str(detail))
    return _json(problem, status, "application/problem+json")
