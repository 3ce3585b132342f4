"""Order history over HTTP, with a real server: answers, pages, waiting, and what is refused."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn

from smrx.history.history_http import MAX_QUERY_BYTES, HistoryService, description
from smrx.history.order_status import LABELS
from tests.history.test_history_store import ENDS, EVENTS, EXPECTED, fill, store
from tests.settlement.market import ACCOUNTS

LAST = int(EVENTS["sequence"][-1])


class Server:
    """A server of one history, in a thread."""

    def __init__(self, path: Path) -> None:
        self.service = HistoryService(path, wait_seconds=0.2)
        settings = uvicorn.Config(
            self.service.application(),
            port=0,
            log_level="error",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(settings)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        deadline = time.monotonic() + 30
        while not self._server.started:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]

    def get(self, path: str, **headers: str) -> tuple[int, Any]:
        """Return the status and the decoded answer of a request."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                assert answer.headers["content-type"] == "application/json"
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            body = error.read()
            is_problem = error.headers["content-type"] == "application/problem+json"
            return error.code, json.loads(body) if is_problem else body.decode()

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        self.service.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    path = tmp_path_factory.mktemp("history")
    writer = store(path)
    writer.open("test")
    fill(writer, np.append(ENDS[39:-1:40], ENDS[-1]))
    writer.close()
    running = Server(path)
    yield running
    running.close()


def test_pages_hold_all_orders_once(server: Server) -> None:
    updates = EXPECTED.updates
    for account in ACCOUNTS:
        cursors, before = [], ""
        while True:
            status, page = server.get(f"/v1/orders?account={account}&limit=60{before}")
            assert (status, page["sequence"]) == (200, LAST)
            cursors += [order["cursor"] for order in page["orders"]]
            if page["next"] is None:
                break
            before = f"&before={page['next']}"
        own = updates[(updates["account"] == account) & (updates["is_first"] == 1)]
        assert cursors == own["event_sequence"][::-1].tolist()


def test_one_order_has_its_timeline(server: Server) -> None:
    status, page = server.get("/v1/orders?account=1&status=Filled&limit=1")
    assert status == 200
    (order,) = page["orders"]
    status, life = server.get(f"/v1/orders/{order['order_id']}?min_sequence={LAST}")
    assert (status, life["order"]) == (200, order)
    assert [life["timeline"][0]["event"], life["timeline"][-1]["status"]] == ["NEW", "Filled"]
    status, page = server.get("/v1/fills?account=1&limit=3")
    assert [len(page["fills"]), page["next"]] == [3, page["fills"][-1]["event_sequence"]]
    assert server.get("/v1/status")[1] == {
        "sequence": LAST,
        "orders": int(EXPECTED.updates["is_first"].sum()),
        "updates": len(EXPECTED.updates),
        "fills": int((EXPECTED.updates["match_id"] != 0).sum()),
    }


def test_order_is_found_by_its_client_order_id(server: Server) -> None:
    status, page = server.get("/v1/orders?account=2&limit=200")
    named = next(order for order in page["orders"] if order["client_order_id"] and order["order_id"])
    name = named["client_order_id"].replace(" ", "%20")
    status, life = server.get(f"/v1/orders/by-client-order-id?account=2&client_order_id={name}")
    assert (status, life["order"]) == (200, named)
    assert server.get(f"/v1/orders/by-client-order-id?account=77&client_order_id={name}")[0] == 404


@pytest.mark.parametrize(
    ("path", "status", "detail"),
    [
        ("/v1/orders", 400, "missing required field `account`"),
        ("/v1/orders?account=x", 400, "Expected `int`"),
        ("/v1/orders?account=-1", 400, "Expected `int` >= 0"),
        ("/v1/orders?account=1&limit=1001", 400, "Expected `int` <= 1000"),
        ("/v1/orders?account=1&limit=" + "9" * 5000, 414, f"at most {MAX_QUERY_BYTES} bytes"),
        ("/v1/orders?account=1&limit=" + "9" * 3000, 400, "parameters: "),
        ("/v1/orders?account=1&status=Gone", 400, "expected names of New, PartiallyFilled"),
        ("/v1/orders?account=1&account=2", 400, "each parameter once"),
        ("/v1/orders?account=1&colour=red", 400, "unknown field `colour`"),
        ("/v1/orders?account=1&before=0", 400, "Expected `int` >= 1"),
        ("/v1/orders/999999", 404, "has no such order"),
        ("/v1/orders/0", 404, "has no such order"),
        ("/v1/orders/" + "9" * 40, 404, "has no such order"),
        (f"/v1/status?min_sequence={LAST + 1}", 503, f"holds events up to {LAST}, not yet {LAST + 1}"),
        ("/v2/orders", 404, "Not Found"),
    ],
)
def test_bad_request_is_a_problem(server: Server, path: str, status: int, detail: str) -> None:
    found, problem = server.get(path)
    assert found == status
    assert problem["status"] == status
    assert detail in problem["detail"]


def test_page_of_another_site_reads_nothing(server: Server) -> None:
    assert server.get("/v1/status", Host="exchange.example") == (400, "Invalid host header")


def test_what_is_committed_later_is_waited_for(tmp_path: Path) -> None:
    running = Server(tmp_path / "history")
    try:
        status, problem = running.get("/v1/status")
        assert status == 503
        assert "smrx settle run --history" in problem["detail"]
        writer = store(tmp_path / "history")
        # LMDB allows one view of a file in a process, so the writer is closed before the server reads.
        writer.open("test")
        fill(writer, ENDS[[40]])
        writer.close()
        assert running.get(f"/v1/status?min_sequence={ENDS[40]}")[1]["sequence"] == ENDS[40]
    finally:
        running.close()


def test_description_names_every_parameter() -> None:
    page = description()
    parameters = [one["name"] for one in page["paths"]["/v1/orders"]["get"]["parameters"]]
    assert parameters == ["min_sequence", "account", "status", "symbol", "before", "limit"]
    assert {"OrderView", "UpdateView", "FillView", "Problem"} <= set(page["components"]["schemas"])
    assert set(LABELS) == {"New", "PartiallyFilled", "Filled", "Cancelled", "Rejected", "Expired"}
