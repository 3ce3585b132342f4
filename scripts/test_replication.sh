#!/usr/bin/env bash
# Run the replication test with real processes. Prints PASS or FAIL for each claim; the exit code is 0 if all pass.
source "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"
exec python -m cluster.replication "$@"
