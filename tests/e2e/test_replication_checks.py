"""The four checks of the replication test on a short tape; scripts/test_replication.sh runs them on a long one."""

from click.testing import CliRunner

from cluster.replication import CHECKS, main


def test_replication_checks_pass() -> None:
    result = CliRunner().invoke(main, ["--commands", "20000"])
    assert result.exit_code == 0, result.output
    for name in CHECKS:
        assert f"PASS ({name})" in result.output, result.output
