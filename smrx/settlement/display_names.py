"""Make display names unique: a symbol that several ids share is shown with its id. Symbols need not be unique."""

from collections import Counter
from collections.abc import Mapping


def unique_names(symbols: Mapping[int, str]) -> dict[int, str]:
    """Return a name for each id that no other id has."""
    shared = {symbol for symbol, count in Counter(symbols.values()).items() if count > 1}
    return {key: f"{symbol} ({key})" if symbol in shared else symbol for key, symbol in symbols.items()}
