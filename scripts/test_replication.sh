#!/usr/bin/env bash
# The replication divergence test, on real processes. Prints PASS or FAIL for each claim; the exit code says the same.
source "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"
exec python -m cluster.replication "$@"
