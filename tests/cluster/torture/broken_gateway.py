"""Run a gateway with a planted bug, with the arguments of `smrx`.

It answers commands itself, as if the exchange had accepted them, and sends the leader only the openings of sessions.
"""

from typing import Any

import numpy as np

from smrx import cli
from smrx.gateway import gateway_process
from smrx.gateway.upstream import Answer, Upstream
from smrx.wire.codes import CommandKind, OutcomeStatus
from smrx.wire.records import COMMAND, OUTCOME


class AnswersByItself(Upstream):
    """An upstream link that answers without the leader."""

    def submit(self, route: Any, body: bytes, commands: int, now: float, details: int = 0, **options: Any) -> None:
        sent = np.frombuffer(body, COMMAND, commands)
        if (sent["kind"] == CommandKind.OPEN_SESSION).any():
            super().submit(route, body, commands, now, details, **options)
            return
        outcomes = np.zeros(commands, OUTCOME)
        outcomes["status"] = OutcomeStatus.ACCEPTED
        outcomes["session_id"], outcomes["request_id"] = sent["session_id"], sent["request_id"]
        self._answers.append(Answer(route, memoryview(outcomes.tobytes())))


def main() -> None:
    """Run the gateway."""
    names: Any = gateway_process
    names.Upstream = AnswersByItself
    cli.main()


if __name__ == "__main__":
    main()
