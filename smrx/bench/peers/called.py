"""What the adapters of peers that are called from Python share: a list of calls made before the clock starts."""

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from smrx.bench.peers.calls import Absent

Call = tuple[Callable[..., Any], tuple[Any, ...]]


def installed(module: str, distribution: str) -> tuple[Any, str]:
    """A peer's module and version; raises Absent if it is not there or does not work on this interpreter."""
    try:
        number = version(distribution)
    except PackageNotFoundError:
        raise Absent(f'{distribution} is not installed; pip install "smrx[peers]" brings it') from None
    try:
        return import_module(module), number
    except Exception as error:  # noqa: BLE001  # whatever a foreign package raises when it is imported
        raise Absent(f"{distribution} {number} cannot be imported here: {type(error).__name__}: {error}") from None


class Called:
    """Calls of Python functions with arguments that are ready, and what they returned."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.results: list[Any] = []

    def play(self, first: int, last: int) -> None:
        self.results += [function(*arguments) for function, arguments in self.calls[first:last]]
