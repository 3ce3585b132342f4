"""Agree on the version of the state machine's rules: which version every member can apply, and who lacks one.

Every message names the versions that its sender can apply and the one in force there. The leader may log the switch to
the next version once every member, learners included, has said that it has it. A node that learns that a version is in
force which its program lacks stops. Does not interpret commands: the node logs the switch (smrx/node/turn.py) and the
state machine performs it. Called for every message, for every message of a leader, and for an operator's request.
"""

from collections.abc import Iterator

from smrx.consensus.context import ReplicaContext, UnknownRules
from smrx.consensus.messages import RulesVersions


class RulesAgreement:
    """What this node knows of the versions of the rules on all members."""

    def __init__(self, context: ReplicaContext) -> None:
        self._context = context
        self._members = context.members
        self._machine = context.machine
        self._views = context.views

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
