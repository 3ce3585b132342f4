"""What a node has on its disk beside term and vote: the journal, if it keeps one, and the snapshots.

Owns which files there are in which durability mode, and refuses a directory that was written in another one. Called by
the reactor when it opens and closes.
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
    """Journal and snapshots of one node, and the machine brought to where they end."""

    def __init__(self, config: Config, node_id: int, meta: MetaStore, state: ReplicatedState) -> None:
        """Open everything and restart the machine; raises StorageError, JournalError, SnapshotError."""
        directory = config.node_dir(node_id)
        started = time.monotonic()
        self._durable = config.durability == "disk"
        self._meta = meta
        self.journal: MemoryJournal = self._journal(config, node_id, meta)
        files = SnapshotFiles(directory / FOLDER, cluster=config.cluster, node_id=node_id)
        try:
            self.snapshots = ForkedSnapshots(state, files, persistent=self._durable)
            self.restarted = restart(state, self.journal, meta, files, applied=lambda: _forget(state))
            self.snapshots.known(self.restarted.snapshots)
        except BaseException:
            self.close()
            raise
        if self.restarted.log_index > 1:
            log.info(
                "node %d: log entry %d, command %d, from its own disk in %.2f s",
                *(node_id, self.restarted.log_index, state.position()[0], time.monotonic() - started),
            )

    def close(self) -> None:
        """Let the files go; what was not synced was promised to nobody."""
        snapshots = getattr(self, "snapshots", None)
        if snapshots is not None:
            snapshots.close()
        if isinstance(self.journal, DiskJournal):
            # A disk that failed said so before; what is not noted now is found out at the next start.
            with contextlib.suppress(StorageError):
                # The term first, as in every turn: entries of one that was not written would be refused.
                self._meta.sync()
                self.journal.note_commit()
            self.journal.close()

    def _journal(self, config: Config, node_id: int, meta: MetaStore) -> MemoryJournal:
        directory = config.node_dir(node_id)
        if self._durable:
            return open_journal(directory, meta, cluster=config.cluster, node_id=node_id)
        if (directory / FILE).exists():
            raise JournalError(
                f'{directory / FILE}: expected no journal with durability = "memory", found one: what it holds would '
                'be ignored and then contradicted; set durability = "disk", or give it up with '
                "`smrx node --id N --rebuild`"
            )
        return MemoryJournal()


def _forget(state: ReplicatedState) -> None:
    """What is applied at a restart was answered and published in an earlier life."""
    state.take_applied()
