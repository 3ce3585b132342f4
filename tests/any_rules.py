"""An engine that accepts every version of the rules, for tests of SET_VERSION itself.

No rule differs between versions yet, so the engine stays the oracle's equal whatever the version.
"""

from smrx.engine import Engine


class EngineOfAnyRules(Engine):
    newest_rules = (1 << 32) - 1
