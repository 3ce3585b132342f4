"""Discard the journal and the snapshots of a node, so that it starts empty and is rebuilt from the other nodes.

Owns which files are removed and which stay: the number of incarnations, the term and the vote stay, so that the node
does not vote twice in a term. `smrx node --rebuild` calls discard() before the node opens anything.
"""

import shutil

from smrx.config import Config
from smrx.consensus.disk_journal import FILE
from smrx.consensus.recovery import DamagedMeta, MetaError, MetaStore, hold_directory, recreate_meta
from smrx.consensus.snapshot_files import FOLDER
from smrx.consensus.storage import StorageError, sync_directory


def discard(config: Config, node_id: int) -> list[str]:
    """Remove the node's journal and snapshots, and meta data that cannot be read; return what was removed.

    Raises MetaError, with nothing removed, if the node is running or the directory belongs to another node.
    """
    directory = config.node_dir(node_id)
    if not directory.is_dir():
        raise MetaError(f"{directory}: the data directory of node {node_id} does not exist")
    removed = []
    try:
        MetaStore(directory, cluster=config.cluster, node_id=node_id).close()
    except DamagedMeta:
        recreate_meta(directory, cluster=config.cluster, node_id=node_id)
        removed.append("term and vote, which were damaged")
    with hold_directory(directory):
        journal, snapshots = directory / FILE, directory / FOLDER
        try:
            if journal.exists():
                journal.unlink()
                removed.append(str(journal))
            if snapshots.exists():
                shutil.rmtree(snapshots)
                removed.append(str(snapshots))
            sync_directory(directory)
        except OSError as error:
            raise StorageError(f"{error.filename}: cannot be removed: {error.strerror}") from None
    return removed
