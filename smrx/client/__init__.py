"""The SDK: a blocking and an asyncio client with the same verbs, over one session state machine.

Each client is imported when it is first used: who blocks does not wait for asyncio.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from smrx.client.client_errors import ClientError, InvalidValue, ProtocolError, Refused, Unavailable

if TYPE_CHECKING:
    from smrx.client.async_client import AsyncClient
    from smrx.client.blocking_client import Client

__all__ = ["AsyncClient", "Client", "ClientError", "InvalidValue", "ProtocolError", "Refused", "Unavailable"]

_MODULES = {"AsyncClient": "smrx.client.async_client", "Client": "smrx.client.blocking_client"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'smrx.client' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
