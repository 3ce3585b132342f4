"""Names for people: symbols, each with its id where several have the same. The exchange asks nobody for unique ones."""

from collections import Counter
from collections.abc import Mapping


def told_apart(symbols: Mapping[int, str]) -> dict[int, str]:
    """Return a name for each id that no other id has."""
    shared = {symbol for symbol, count in Counter(symbols.values()).items() if count > 1}
    return {key: f"{symbol} ({key})" if symbol in shared else symbol for key, symbol in symbols.items()}
