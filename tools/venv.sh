# Making virtual environments on a bare machine; sourced by the other scripts here.
# Responsible for: an interpreter that is new enough, an environment with pip in it, one maker at
# a time. Not responsible for: what is installed.

# Errors only; its warnings are about pip itself and the machine's own settings of it.
PIP_QUIET=(-qq --disable-pip-version-check --root-user-action=ignore --no-input)

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "error: $*"
    exit 1
}

# The first interpreter of 3.11 or later; PYTHON=… chooses another.
find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.11 python3 python3.12 python3.13}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    fail "Python 3.11 or later is needed: apt-get install python3 python3-venv, or set PYTHON=…"
}

# make_venv DIR PYTHON: an environment with pip. Debian's own Python has no ensurepip unless
# python3-venv is installed; its pip, where there is one, serves as well.
make_venv() {
    local dir=$1 python=$2
    if "$python" -c 'import ensurepip; ensurepip.version()' 2>/dev/null; then
        "$python" -m venv --clear "$dir"
    elif "$python" -m pip --version >/dev/null 2>&1; then
        "$python" -m venv --clear --without-pip "$dir"
        "$python" -m pip --python "$dir/bin/python" install "${PIP_QUIET[@]}" pip
    else
        fail "$python cannot make environments with pip: apt-get install python3-venv"
    fi
}

# one_at_a_time FILE: wait until no other run of these scripts holds FILE, then hold it until
# this one ends. FILE is one of the repository's own, so no lock file is left behind.
one_at_a_time() {
    command -v flock >/dev/null || return 0 # macOS has none; there, do not run it twice.
    exec 9<"$1"
    flock 9
}
