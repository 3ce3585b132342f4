"""Open a node's journal and snapshots and restore its state from them.

Owns which files exist in each durability mode, and refuses a directory that was written in another mode. Term and vote
are in consensus/recovery.py. The reactor opens and closes it.
"""

import contextlib
import logging
import time

from smrx.config import Config
from smrx.consensus.disk_journal import FILE, DiskJournal, JournalError, open_journal
from smrx.consensus.journal import MemoryJournal
from smrx.consensus.recovery import MetaStore
from smrx.consensus.restart import restart
from smrx.consensus.snapshot_files import FOLDER, SnapshotFiles
from smrx.consensus.snapshot_taker import ForkedSnapshots
from smrx.consensus.storage import StorageError
from smrx.node.replicated_state import ReplicatedState

log = logging.getLogger(__name__)


class NodeStorage:
    """The journal and the snapshots of one node; opening them restores the state."""

    def __init__(self, config: Config, node_id: int, meta: MetaStore, state: ReplicatedState) -> None:
        """Open the files and restore the state; raises StorageError, JournalError, SnapshotError."""
        directory = config.node_dir(node_id)
        started = time.monotonic()
        self._durable = config.durability == "disk"
        self._meta = meta
        self.journal: MemoryJournal = self._journal(config, node_id, meta)
        files = SnapshotFiles(directory / FOLDER, cluster=config.cluster, node_id=node_id)
        try:
            self.snapshots = ForkedSnapshots(state, files, persistent=self._durable, growing=state.growing_memory)
            self.restarted = restart(state, self.journal, meta, files, applied=lambda: _drop_results(state))
            self.snapshots.use_stored(self.restarted.snapshots)
        except BaseException:
            self.close()
            raise
        if self.restarted.log_index > 1:
            log.info(
                "node %d restored log entry %d, command %d from its disk in %.2f s",
                *(node_id, self.restarted.log_index, state.position()[0], time.monotonic() - started),
            )

    def close(self) -> None:
        """Close the files. Nothing was acknowledged that is not synced."""
        snapshots = getattr(self, "snapshots", None)
        if snapshots is not None:
            snapshots.close()
        if isinstance(self.journal, DiskJournal):
            # A failed disk was reported before; the next start finds out what is not written now.
            with contextlib.suppress(StorageError):
                # The term first, as in every turn: a journal with entries of a later term is refused.
                self._meta.sync()
                self.journal.sync_commit_index()
            self.journal.close()

    def _journal(self, config: Config, node_id: int, meta: MetaStore) -> MemoryJournal:
        directory = config.node_dir(node_id)
        if self._durable:
            return open_journal(directory, meta, cluster=config.cluster, node_id=node_id)
        if (directory / FILE).exists():
            raise JournalError(
                f'{directory / FILE}: a journal exists, but durability = "memory" would ignore it and lose its '
                f'commands; set durability = "disk", or discard it with `smrx node --id {node_id} --rebuild`'
            )
        return MemoryJournal()


def _drop_results(state: ReplicatedState) -> None:
    """Drop the results of entries applied at a restart: an earlier incarnation has replied and published them."""
    state.take_applied()
