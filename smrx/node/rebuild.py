"""Begin a damaged node anew: what it holds is given up, and it learns everything from the others.

Owns what is removed and what must stay: the number of its lives, its term and its vote, so that no promise it gave is
forgotten. Called by `smrx node --rebuild`, before the node opens anything.
"""

import shutil

from smrx.config import Config
from smrx.consensus.disk_journal import FILE
from smrx.consensus.recovery import DamagedMeta, MetaError, MetaStore, hold_directory, renew
from smrx.consensus.snapshot_files import FOLDER
from smrx.consensus.storage import StorageError, sync_directory


def discard(config: Config, node_id: int) -> list[str]:
    """Remove the node's journal and snapshots, and meta data that cannot be read; return what was removed.

    Raises MetaError, with nothing removed, if the node runs or the directory is another's.
    """
    directory = config.node_dir(node_id)
    if not directory.is_dir():
        raise MetaError(f"{directory}: expected the data directory of node {node_id}, found none")
    removed = []
    try:
        MetaStore(directory, cluster=config.cluster, node_id=node_id).close()
    except DamagedMeta:
        renew(directory, cluster=config.cluster, node_id=node_id)
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
            raise StorageError(f"{error.filename}: expected to remove it, found: {error.strerror}") from None
    return removed
