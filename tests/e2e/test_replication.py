"""The four claims of the replication divergence test, small, as scripts/test_replication.sh runs them large."""

from click.testing import CliRunner

from cluster.replication import CLAIMS, main


def test_the_four_claims_hold_on_real_processes() -> None:
    result = CliRunner().invoke(main, ["--commands", "20000"])
    assert result.exit_code == 0, result.output
    for name in CLAIMS:
        assert f"PASS ({name})" in result.output, result.output
