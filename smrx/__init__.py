"""smrx: an exchange core whose acknowledged orders survive the failure of a minority of its nodes.

`smrx.Client`, `smrx.AsyncClient` and `smrx.Engine` are imported on first use, so `import smrx` loads neither the
compiler nor the socket library.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smrx.client import AsyncClient as AsyncClient
    from smrx.client import Client as Client
    from smrx.engine import Engine as Engine

__all__ = ["AsyncClient", "Client", "Engine"]

_MODULES = {"AsyncClient": "smrx.client", "Client": "smrx.client", "Engine": "smrx.engine"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'smrx' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
