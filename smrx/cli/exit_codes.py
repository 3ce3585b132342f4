"""The exit codes of `smrx`, so that a script can tell what went wrong without reading English.

Stable numbers: documented in docs/cli-reference.md, used by every command, and by nothing outside smrx/cli and tools
that start it.
"""

from enum import IntEnum


class Exit(IntEnum):
    """One number, one meaning."""

    OK = 0  #: done
    INTERNAL = 1  #: a fault of smrx itself
    USAGE = 2  #: the command line, the configuration or a file given to it cannot be used
    UNAVAILABLE = 3  #: no node answers, or the cluster has no leader
    REFUSED = 4  #: the exchange refused the request, with a reason
    GAP = 5  #: events are missing from the feed and no node holds them any more
    DIVERGED = 6  #: a check failed: nodes differ, or the feed, the books or history contradict each other
    RESOURCE = 7  #: a port, a data directory or a file of this machine is taken or cannot be used
    BALANCE = 8  #: the books of settlement and the cluster's balances differ
    SINK = 9  #: settled trades cannot be stored, or what is stored is something else
    UNATTESTED = 10  #: events are there that no majority of nodes has published alike
    DISK = 11  #: the disk of a running node is full or failed; what was acknowledged is safe
    LOG = 12  #: settled trades are not those that the log of a node leads to


#: What each number means, for the documentation and `smrx --help`.
MEANINGS = {
    Exit.OK: "done",
    Exit.INTERNAL: "a fault of smrx itself; run again with --debug for the details",
    Exit.USAGE: "the command line, the configuration or a file given to it cannot be used",
    Exit.UNAVAILABLE: "no node answers, or the cluster has no leader",
    Exit.REFUSED: "the exchange refused the request; the reason is named",
    Exit.GAP: "events are missing from the feed and no node holds them any more",
    Exit.DIVERGED: "a check failed: nodes differ, or feed, books or history contradict each other",
    Exit.RESOURCE: "a port, a data directory or a file of this machine is taken or cannot be used",
    Exit.BALANCE: "the books of settlement and the balances of the cluster differ; account and first event are named",
    Exit.SINK: "settled trades cannot be stored, or what is stored is of another cluster or history",
    Exit.UNATTESTED: "events are there that no majority of nodes has published alike; they are not settled",
    Exit.DISK: "the disk of a running node is full or failed; what was acknowledged is safe",
    Exit.LOG: "settled trades are not those that the log of a node leads to; the first one is named",
}
