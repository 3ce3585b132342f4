# Sourced by the other scripts: goes to the project's root and makes sure of an environment with smrx in it.
# Needs a Python >= 3.11, a C library and the package registry; installs only when pyproject.toml has changed.
# SMRX_VENV names another place for the environment than .venv.

set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
venv=${SMRX_VENV:-$root/.venv}

die() {
    printf '%s: %s\n' "$(basename -- "$0")" "$*" >&2
    exit 2
}

# A name on PATH may be a stub that starts nothing, so each candidate is asked for its version.
find_python() {
    local candidate
    for candidate in python3.13 python3.12 python3.11 python3 python; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    for candidate in python3 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    die "expected Python 3.11 or newer as python3.13, python3.12, python3.11 or python3, found $(python3 --version 2>/dev/null || echo none); install one and run this again"
}

make_venv() {
    local python
    python=$(find_python)
    "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 ||
        die "$python has no venv with pip (the module ensurepip is missing); install it (on Debian and Ubuntu: the package python3-venv) and run this again"
    printf 'making %s with %s\n' "${venv#"$root"/}" "$("$python" --version)" >&2
    "$python" -m venv --clear "$venv" || die "python could not make an environment in $venv"
}

# The stamp holds what was installed: pyproject.toml as it was, and where the project stood.
fingerprint() {
    printf '%s\n' "$root"
    cat -- "$root/pyproject.toml"
}

install_smrx() {
    local stamp=$venv/.smrx-installed
    [ -x "$venv/bin/python" ] && "$venv/bin/python" -c '' 2>/dev/null || make_venv
    if [ -f "$stamp" ] && [ "$(cat -- "$stamp")" = "$(fingerprint)" ]; then
        return
    fi
    printf 'installing smrx and what it needs (once; takes a minute)\n' >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$root[dev]" ||
        die "the installation failed; what pip said stands above (it needs the package registry)"
    fingerprint >"$stamp"
}

cd -- "$root"
install_smrx
export PATH="$venv/bin:$PATH"
export VIRTUAL_ENV=$venv
unset PYTHONHOME PYTHONPATH
