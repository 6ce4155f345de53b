# Sourced by the scripts beside it, which set `here` to this directory. Finds a Python that is new enough and
# keeps `.venv` in step with a lock file. POSIX sh; says what it does on stderr.
#
#   ensure_venv requirements.lock      .venv holds at least what that file says, and TokenHub itself
#
# Names that begin with an underscore are this file's own: sh has no local variables.

root=$(CDPATH='' cd -- "$here/.." && pwd -P)
venv=$root/.venv

# Both would make the interpreter of .venv read somebody else's library. An empty HOME is no home at all:
# unset, Python looks the user up instead.
unset PYTHONHOME __PYVENV_LAUNCHER__
[ -n "${HOME-}" ] || unset HOME

say() { printf 'tokenhub: %s\n' "$*" >&2; }

# --- Which Python -------------------------------------------------------------------------------------------

_probe='
import sys
if sys.version_info < (3, 12): sys.exit(3)
try: import ensurepip, venv
except ImportError: sys.exit(4)
print(sys.executable)
'

# Set `python` to the interpreter behind $1 if it will do. A pyenv shim may be on PATH and fail all the same,
# so only an interpreter that has answered counts; what it answers with is the real path, not the shim.
_try() {
    _found=$("$1" -c "$_probe" 2>/dev/null) && [ -x "$_found" ] && python=$_found && return 0
    "$1" -c "$_probe" >/dev/null 2>&1 || [ $? -ne 4 ] || _no_venv=$1
    return 1
}

_try_all() {
    for _candidate in "$@"; do
        [ -x "$_candidate" ] && _try "$_candidate" && return 0
    done
    return 1
}

find_python() {
    _no_venv=''
    if [ -n "${TOKENHUB_PYTHON-}" ]; then
        _try "$TOKENHUB_PYTHON" && return 0
        say "TOKENHUB_PYTHON is $TOKENHUB_PYTHON, which is not a working Python 3.12 or newer with its venv module."
        return 2
    fi
    for _name in python3.13 python3.12 python3 python3.14 python; do
        command -v "$_name" >/dev/null 2>&1 && _try "$_name" && return 0
    done
    _home=${HOME-$(eval "printf %s ~$(id -un)")}
    for _pyenv in "${PYENV_ROOT-}" "$(pyenv root 2>/dev/null || :)" "$_home/.pyenv"; do
        [ -d "$_pyenv/versions" ] || continue
        _try_all "$_pyenv"/versions/3.13*/bin/python "$_pyenv"/versions/3.1[2-9]*/bin/python && return 0
    done
    _try_all /usr/local/bin/python3.1[2-9] /opt/homebrew/bin/python3.1[2-9] /usr/bin/python3.1[2-9] && return 0
    if command -v uv >/dev/null 2>&1; then
        _uv=$(UV_PYTHON_DOWNLOADS=never uv python find --system '>=3.12' 2>/dev/null) && _try "$_uv" && return 0
    fi
    if [ -n "$_no_venv" ]; then
        say "$_no_venv is new enough but comes without its venv module. On Debian and Ubuntu the package" \
            "python3-venv (or python3.12-venv) has it. Or name another Python: TOKENHUB_PYTHON=/path/to/python3.12."
    else
        say "TokenHub needs Python 3.12 or newer, and none was found: not as python3.13, python3.12 or python3 on" \
            "PATH, not among the versions of pyenv or uv. Install one (python.org, your system's packages," \
            "'pyenv install 3.13' or 'uv python install 3.13'), or name one: TOKENHUB_PYTHON=/path/to/python3.12."
    fi
    return 2
}

# --- One installation at a time -----------------------------------------------------------------------------

# A symbolic link is made or not made, and its target tells who holds it, in one step; a directory would need a
# file in it, and there would be a moment without. A holder that was killed is told by its process being gone.
_lock() {
    mkdir -p "$venv"
    _told=''
    until ln -s "$$" "$venv/.lock" 2>/dev/null; do
        _holder=$(readlink "$venv/.lock" 2>/dev/null || :)
        if [ -n "$_holder" ] && ! kill -0 "$_holder" 2>/dev/null; then
            # Taken away by renaming, so that of several who wait one does it; if it was no longer the dead
            # one's, somebody was faster and it goes back.
            mv "$venv/.lock" "$venv/.lock.$$" 2>/dev/null || continue
            if [ "$(readlink "$venv/.lock.$$")" = "$_holder" ]; then
                rm -f "$venv/.lock.$$"
            else
                mv "$venv/.lock.$$" "$venv/.lock"
            fi
            continue
        fi
        [ -n "$_told" ] || say "waiting for another installation into .venv (process $_holder)"
        _told=yes
        sleep 1
    done
    trap '_unlock' EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

_unlock() {
    rm -f "$venv/.lock"
    trap - EXIT HUP INT TERM
}

# --- The installation ---------------------------------------------------------------------------------------

# What .venv was last brought in step with: the place (its scripts name it), the lock file's name, and a
# checksum of everything that decides what is installed.
_stamp() {
    printf '%s %s ' "$root" "$1"
    cat "$root/$1" "$root/pyproject.toml" | cksum
}

_in_step() {
    [ -x "$venv/bin/python" ] && [ -r "$venv/.stamp" ] || return 1
    IFS= read -r _have <"$venv/.stamp" || return 1
    [ "$_have" = "$(_stamp "$1")" ]
}

# The development lock holds everything that the other one does, so it will do for both.
_satisfied() {
    _in_step "$1" || { [ "$1" = requirements.lock ] && _in_step requirements-dev.lock; }
}

# A .venv that was moved here, whose Python is gone, or whose making was interrupted cannot be mended.
_usable() {
    "$venv/bin/python" -c 'import pip' 2>/dev/null || return 1
    [ ! -e "$venv/.stamp" ] || grep -qF "$root " "$venv/.stamp"
}

_pip() {
    "$venv/bin/python" -m pip install --quiet --no-input --disable-pip-version-check "$@"
}

_install() {
    if ! _usable; then
        find_python || return
        say "making .venv with $python"
        rm -rf "${venv:?}"/*
        "$python" -m venv "$venv" || return
    fi
    rm -f "$venv/.stamp"
    say "installing $(grep -c '^[^ #]' "$root/$1") packages of $1 into .venv (only when it changes; up to two minutes)"
    _pip --require-hashes -r "$root/$1" || return
    _pip --no-deps --no-build-isolation -e "$root" || return
    _stamp "$1" >"$venv/.stamp.new" || return
    mv "$venv/.stamp.new" "$venv/.stamp" || return
    say "installed"
}

ensure_venv() {
    _satisfied "$1" && return 0
    _lock
    _satisfied "$1" || _install "$1" || {
        _code=$?
        _unlock
        say "the installation did not succeed; the reason stands above"
        exit "$_code"
    }
    _unlock
}
