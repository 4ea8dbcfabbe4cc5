# Sourced by launch.sh and scripts/test.sh: makes the virtual environment of this checkout on first use and enters it.
# VENV names another place for it, PYTHON another interpreter. The argument names the extras to install.

make_environment() {
    local extras=$1 venv=${VENV:-.venv} python=${PYTHON:-python3} wanted
    if [[ -w setup.cfg ]]; then exec 9<>setup.cfg; else exec 9<setup.cfg; fi
    if command -v flock >/dev/null; then
        flock 9 || true  # the machines of a job may share this folder, on a file system that knows locks
    fi
    wanted=$(cat setup.cfg pyproject.toml <(echo "$extras") | cksum)
    if [[ ! -f $venv/bin/activate ]]; then  # what venv writes last
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
            echo "error: $("$python" --version) is too old, Python 3.11 or newer is needed; set PYTHON=..." >&2
            return 2
        }
        echo "making the environment $venv (once; a few minutes and 6 GB)" >&2
        "$python" -m venv "$venv"
    fi
    # shellcheck disable=SC1091
    source "$venv/bin/activate"
    # Python compiles what it imports and keeps it, which is much less than pip would compile.
    unset PYTHONDONTWRITEBYTECODE
    if [[ $(cat "$venv/.installed-$extras" 2>/dev/null) != "$wanted" ]]; then
        pip install --quiet --disable-pip-version-check --no-compile --editable ".${extras:+[$extras]}" >&2
        echo "$wanted" >"$venv/.installed-$extras"
    fi
    exec 9>&-
}
