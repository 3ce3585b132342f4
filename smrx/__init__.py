"""smrx: an exchange core that cannot lose an acknowledged order.

`smrx.Client`, `smrx.AsyncClient` and `smrx.Engine` are imported when they are first used: `import smrx` waits for no
compiler and no socket library.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smrx.client import AsyncClient as AsyncClient
    from smrx.client import Client as Client
    from smrx.engine import Engine as Engine

__all__ = ["AsyncClient", "Client", "Engine"]

_HOME = {"AsyncClient": "smrx.client", "Client": "smrx.client", "Engine": "smrx.engine"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'smrx' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
