# Sourced by the other scripts: changes to the root of the project and activates a virtual environment with smrx.
# Needs Python >= 3.11, a C library and the package registry. Installs only if pyproject.toml has changed.
# SMRX_VENV is the path of the environment; .venv if it is not set.

set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
venv=${SMRX_VENV:-$root/.venv}

die() {
    printf '%s: %s\n' "$(basename -- "$0")" "$*" >&2
    exit 2
}

# A name on PATH may be a stub that does not run, so each candidate is tried.
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
    die "Python 3.11 or newer is required, found $(python3 --version 2>/dev/null || echo none); install it as python3 or python3.N and run this again"
}

make_venv() {
    local python
    python=$(find_python)
    "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 ||
        die "$python cannot create virtual environments (module ensurepip or venv is missing); install it (on Debian and Ubuntu: package python3-venv) and run this again"
    printf 'creating %s with %s\n' "${venv#"$root"/}" "$("$python" --version)" >&2
    "$python" -m venv --clear "$venv" || die "cannot create a virtual environment in $venv"
}

# The stamp file holds pyproject.toml and the path of the project at the last installation.
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
    printf 'installing smrx and its dependencies (once, takes a minute)\n' >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$root[dev]" ||
        die "the installation failed, see the output of pip above (it needs the package registry)"
    fingerprint >"$stamp"
}

cd -- "$root"
install_smrx
export PATH="$venv/bin:$PATH"
export VIRTUAL_ENV=$venv
unset PYTHONHOME PYTHONPATH
