# shellcheck shell=bash
# What the scripts share: messages, finding the tools, installing what is missing.
# Sourced, not run. Sets `root` and changes to it.

set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
cd "$root"
# shellcheck disable=SC2034 # used by those who source this
target_dir="${CARGO_TARGET_DIR:-$root/target}"
venv="$root/.venv"

# CMake 3.26 is what the bundled HDF5 asks for. The second is what PyPI provides where the
# distribution's is older (Debian 12, Ubuntu 22.04).
cmake_min=3.26
cmake_from_pypi="cmake==4.4.4"

say() { printf '%s\n' "$*"; }
step() { printf '\n== %s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# True if version $1 is at least version $2.
version_ge() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# Runs a command as root: directly, or through sudo. Fails where neither is possible.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif have sudo && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
        sudo "$@"
    else
        return 1
    fi
}

apt_updated=no

# Runs apt-get as root and without questions; what it prints is shown only if it fails.
apt_get() {
    local log status=0
    log="$(mktemp "${TMPDIR:-/tmp}/cidstored-apt.XXXXXX")"
    # Only apt-get is kept from the terminal: sudo may have to ask for a password.
    # shellcheck disable=SC2016 # expanded by that shell
    as_root env DEBIAN_FRONTEND=noninteractive \
        sh -c 'exec apt-get -q -y "$@" </dev/null' apt-get "$@" >"$log" 2>&1 || status=$?
    [ "$status" -eq 0 ] || tail -n 20 "$log" >&2
    rm -f "$log"
    return "$status"
}

apt_update() {
    [ "$apt_updated" = no ] || return 0
    apt_updated=yes
    apt_get update || warn "'apt-get update' failed (no network?); going on with the package lists that are here"
}

# Installs Debian packages, or says which ones are missing and why it cannot install them.
# $1 says what they are for.
apt_install() {
    local purpose="$1"
    shift
    have apt-get \
        || die "missing for $purpose: $* (Debian's names). This system has no apt-get: install their equivalents, then run this again."
    as_root true \
        || die "missing for $purpose: $*. Installing needs root, and sudo is not usable here. As root: apt-get install $*"
    say "installing for $purpose: $*"
    apt_update
    apt_get install --no-install-recommends "$@" \
        || die "could not install $* (needed for $purpose); what apt-get said is above"
}

need_rust() {
    # rustup's folder is not on the PATH of a shell that was opened before it was installed.
    if ! have cargo && [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
        PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    fi
    local wanted found
    wanted="$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)"
    if ! have cargo || ! have rustc; then
        die "no Rust here (cargo is not on the PATH). Install $wanted or newer with rustup, from https://rustup.rs, then run this again. If you called this script through sudo, call it as yourself: it uses sudo where it must."
    fi
    found="$(rustc --version | cut -d' ' -f2)"
    version_ge "$found" "$wanted" \
        || die "Rust $wanted or newer is needed, this is $found. With rustup: rustup update stable"
}

# The Python environment of this checkout, which keeps what PyPI provides out of the system.
need_venv() {
    [ -x "$venv/bin/pip" ] && "$venv/bin/python" -c '' 2>/dev/null && return
    local missing=()
    have python3 || missing+=(python3)
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    [ "${#missing[@]}" -eq 0 ] || apt_install "a Python environment in .venv" "${missing[@]}"
    rm -rf "$venv"
    python3 -m venv "$venv"
}

# Installs PyPI packages into .venv; a no-op where they are there.
pip_install() {
    "$venv/bin/python" -m pip install -q --disable-pip-version-check "$@" \
        || die "could not install from PyPI: $* (no network?)"
}

cmake_version() { cmake --version 2>/dev/null | sed -n '1s/cmake version //p'; }

need_cmake() {
    # The one this script installed earlier goes first: HDF5 is compiled again when CMake moves.
    if [ -x "$venv/bin/cmake" ]; then
        PATH="$venv/bin:$PATH"
    fi
    version_ge "$(cmake_version)" "$cmake_min" && return
    if have apt-get && apt_has_cmake; then
        apt_install "the bundled HDF5" cmake
    else
        say "CMake >= $cmake_min is needed for the bundled HDF5, found: $(cmake_version || true); taking it from PyPI into .venv"
        need_venv
        pip_install "$cmake_from_pypi"
        PATH="$venv/bin:$PATH"
    fi
    hash -r
    version_ge "$(cmake_version)" "$cmake_min" || die "no CMake >= $cmake_min, found: $(cmake_version)"
}

# True if this release of the distribution has a CMake that is new enough, and root to install it.
apt_has_cmake() {
    as_root true || return 1
    apt_update
    local candidate
    candidate="$(apt-cache policy cmake 2>/dev/null | sed -n 's/^ *Candidate: //p')"
    version_ge "${candidate:-0}" "$cmake_min"
}

# Everything that `cargo build` needs here.
need_build_tools() {
    # First, since it is what no package installs.
    need_rust
    local missing=()
    have cc && have c++ && have make || missing+=(build-essential)
    have pkg-config || missing+=(pkg-config)
    { have pkg-config && pkg-config --exists libzmq; } || missing+=(libzmq3-dev)
    [ "${#missing[@]}" -eq 0 ] || apt_install "the build" "${missing[@]}"
    need_cmake
}
