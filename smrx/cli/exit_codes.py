"""The exit codes of `smrx`. A script tells errors apart by them; the numbers are stable and documented.

Used by smrx/cli and by the tools that start `smrx`.
"""

from enum import IntEnum


class Exit(IntEnum):
    """One number for each kind of error; MEANINGS describes them."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    UNAVAILABLE = 3
    REFUSED = 4
    GAP = 5
    DIVERGED = 6
    RESOURCE = 7
    BALANCE = 8
    SINK = 9
    UNATTESTED = 10
    DISK = 11
    LOG = 12
    UNREPORTED = 13
    RULES = 14


#: What each number means, for the documentation and `smrx --help`.
MEANINGS = {
    Exit.OK: "success",
    Exit.INTERNAL: "internal error of smrx; run the command again with --debug for a traceback",
    Exit.USAGE: "invalid command line, configuration or input file",
    Exit.UNAVAILABLE: "no node answers, or the cluster has no leader",
    Exit.REFUSED: "the exchange refused the request; the message names the reason",
    Exit.GAP: "events are missing from the feed, and no node holds them any more",
    Exit.DIVERGED: "a check failed: nodes, the feed, the books or recorded history contradict each other",
    Exit.RESOURCE: "a port, data directory or file on this machine is in use or unusable",
    Exit.BALANCE: "the books of settlement differ from the balances of the cluster; the message names the account",
    Exit.SINK: "a sink cannot store settled trades, or holds data of another cluster or history",
    Exit.UNATTESTED: "no majority of nodes has published the same events; they are not settled",
    Exit.DISK: "the disk of a running node is full or failed; acknowledged commands are safe",
    Exit.LOG: "settled trades differ from the log of a node; the message names the first one",
    Exit.UNREPORTED: "done, but the answer could not be written to stdout and is on stderr; do not repeat the command",
    Exit.RULES: "this program cannot apply the rules in force; the message says which program can",
}
