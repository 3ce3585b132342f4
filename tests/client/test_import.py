"""What `import smrx` offers, and what it does not wait for."""

import subprocess
import sys

import pytest

import smrx
from smrx.client.async_client import AsyncClient
from smrx.client.blocking_client import Client
from smrx.engine import Engine


def test_package_exports_the_clients_and_the_engine() -> None:
    assert smrx.Client is Client
    assert smrx.AsyncClient is AsyncClient
    assert smrx.Engine is Engine
    assert {"Client", "AsyncClient", "Engine"} <= set(dir(smrx))
    with pytest.raises(AttributeError, match="no attribute 'Exchange'"):
        _ = smrx.Exchange


@pytest.mark.parametrize(
    ("statement", "absent"),
    [("import smrx", ["numba", "numpy", "zmq", "asyncio"]), ("from smrx.client import Client", ["zmq.asyncio"])],
)
def test_import_loads_only_what_it_needs(statement: str, absent: list[str]) -> None:
    check = f"import sys; {statement}; print([name for name in {absent!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout.strip() == "[]"
