"""Run a node whose memory can be damaged, for tests of divergence detection: `python -m cluster.corruptible_node ...`.

The arguments are those of smrx. A request to damage a balance is a file beside the data of the node, so it needs the
rights of the node's user, and no node of the product has it. Owns that file; corrupt() writes it and waits for the
answer. Such a node does not scrub its memory: the damage is left to the comparison of state hashes to find.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from smrx import cli
from smrx.config import Config
from smrx.node import reactor
from smrx.node.memory_scrub import MemoryScrub

#: The command that runs `smrx` with such nodes; see LocalCluster.
PROGRAM: Final = (sys.executable, "-m", "cluster.corruptible_node")
_POLL_SECONDS: Final = 0.01


class _Damage(msgspec.Struct):
    """The change of a balance, and whether there was one to change: None until the node has done it."""

    account: int
    asset: int
    delta: int
    done: bool | None = None


class CorruptibleNode(reactor.Node):
    """A node that damages a balance in its memory on request."""

    def __init__(self, config: Config, node_id: int) -> None:
        super().__init__(config, node_id)
        self._scrub = MemoryScrub(self.state, enabled=False)
        self._request = _path(config, node_id)

    def turn(self) -> None:
        """See Node."""
        super().turn()
        if self._request.exists():
            damage = msgspec.json.decode(self._request.read_bytes(), type=_Damage)
            if damage.done is None:
                damage.done = self.state.engine.corrupt_balance(damage.account, damage.asset, damage.delta)
                _write(self._request, damage)


def corrupt(config: Config, node_id: int, account: int, asset: int, delta: int, timeout: float = 10.0) -> bool:
    """Let a running node change a balance in its memory; return whether there was one.

    Raises TimeoutError if the node does not do it in time.
    """
    path = _path(config, node_id)
    _write(path, _Damage(account, asset, delta))
    deadline = time.monotonic() + timeout
    while True:
        done = msgspec.json.decode(path.read_bytes(), type=_Damage).done
        if done is not None:
            path.unlink()
            return done
        if time.monotonic() > deadline:
            raise TimeoutError(f"node {node_id} did not damage its memory within {timeout:g} s")
        time.sleep(_POLL_SECONDS)


def _path(config: Config, node_id: int) -> Path:
    return config.node_dir(node_id).with_suffix(".damage")


def _write(path: Path, damage: _Damage) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}")
    part.write_bytes(msgspec.json.encode(damage))
    part.replace(path)


def main() -> None:
    """Run the node."""
    names: Any = reactor
    names.Node = CorruptibleNode
    cli.main(sys.argv[1:])


if __name__ == "__main__":
    main()
