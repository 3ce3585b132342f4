"""Agree on the version of the state machine's rules: which version every member can apply, and who lacks one.

Every message names the versions that its sender can apply and the one in force there. The leader may log the switch to
the next version once every member, learners included, has said that it has it. A new exchange begins with the newest
version that all members have. A node that learns that a version is in force which its program lacks stops. Does not
interpret commands: the node logs the switch (smrx/node/turn.py) and the state machine performs it. Called for every
message, for every message of a leader, for an operator's request, and by the first leader of an exchange.
"""

import logging
from collections.abc import Iterator

from smrx.consensus.context import ReplicaContext, UnknownRules
from smrx.consensus.messages import RulesVersions
from smrx.consensus.raft_library import now

log = logging.getLogger(__name__)


class RulesAgreement:
    """What this node knows of the versions of the rules on all members."""

    def __init__(self, context: ReplicaContext) -> None:
        self._context = context
        self._members = context.members
        self._machine = context.machine
        self._views = context.views
        #: When this node began to wait for members that it has not heard, see first_version().
        self._waiting_since: float | None = None

    def observe(self, peer: int, rules: RulesVersions | None) -> None:
        """Note what a peer says. Raises UnknownRules if rules are in force on a member that this program lacks."""
        self._views[peer].rules = rules
        if rules is None:
            return
        own = self._machine.rules()
        # Only a committed command changes the version in force. A new node is at the first version and says nothing
        # about the cluster, so there is no such check against `oldest`: the state machine makes it.
        if rules.in_force > own.newest and peer in self._members.ids:
            raise UnknownRules(
                f"version {rules.in_force} of the rules is in force on node {peer}, and the program of node "
                f"{self._context.node_id} applies {described(own)}; run a newer program on this node"
            )

    def lacks_rules(self, peer: int) -> bool:
        """Return whether a peer said that it cannot apply the rules in force: it could not read newer entries."""
        rules = self._views[peer].rules
        return rules is not None and rules.newest < self._machine.rules().in_force

    def next_version(self) -> int:
        """Return the version after the one in force; raises ValueError, in one sentence, if a member lacks it."""
        version = self._machine.rules().in_force + 1
        faults = list(self._faults(version))
        if faults:
            raise ValueError(
                f"the rules stay at version {version - 1}: {'; '.join(faults)}; every member has to run a program "
                f"with version {version} first"
            )
        return version

    def first_version(self) -> int | None:
        """Return the version with which an exchange without commands begins: the newest that every member has.

        None while a member has not spoken to this node, for one election timeout at most. Then the version in force
        stays, and the log says why: a silent member might lack a newer one.
        """
        own = self._machine.rules()
        others = self._members.ids - {self._context.node_id}
        silent = sorted(node for node in others if not self._views[node].incarnation)
        if silent:
            self._waiting_since = now() if self._waiting_since is None else self._waiting_since
            if now() - self._waiting_since < self._context.settings.timing.election_max_ms / 1000:
                return None
            log.warning(
                "the exchange begins with version %d of the rules: node %s has not said which versions its program "
                "has; run `smrx cluster upgrade` when it does",
                own.in_force,
                " and node ".join(map(str, silent)),
            )
            return own.in_force
        found = [self._views[node].rules for node in others]
        newest = min([own.newest, *(own.in_force if rules is None else rules.newest for rules in found)])
        return max(own.in_force, newest)

    def _faults(self, version: int) -> Iterator[str]:
        """Yield why each member is not known to have a version."""
        for node in sorted(self._members.ids):
            if node == self._context.node_id:
                rules: RulesVersions | None = self._machine.rules()
            elif not self._context.transport.is_connected(node):
                yield f"node {node} does not answer"
                continue
            else:
                rules = self._views[node].rules
            if rules is None or rules.newest < version:
                yield f"node {node} applies " + ("version 1 only" if rules is None else described(rules))


def described(rules: RulesVersions) -> str:
    """Return the range of a program as text."""
    if rules.oldest == rules.newest:
        return f"version {rules.newest} only"
    return f"versions {rules.oldest} to {rules.newest}"
