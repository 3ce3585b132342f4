"""The SDK: a blocking and an asyncio client with the same operations, on one session state machine.

Each client is imported on first use, so that the blocking client does not load asyncio.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from smrx.client.client_errors import ClientError, InvalidValue, ProtocolError, Refused, Unavailable

if TYPE_CHECKING:
    from smrx.client.async_client import AsyncClient
    from smrx.client.blocking_client import Client
    from smrx.client.read_levels import Stale

__all__ = ["AsyncClient", "Client", "ClientError", "InvalidValue", "ProtocolError", "Refused", "Stale", "Unavailable"]

_MODULES = {
    "AsyncClient": "smrx.client.async_client",
    "Client": "smrx.client.blocking_client",
    "Stale": "smrx.client.read_levels",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'smrx.client' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
