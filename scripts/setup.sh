#!/usr/bin/env bash
# Everything a fresh machine needs; demo.sh and test.sh source it.
#
# It sets ROOT (the checkout) and VENV_PYTHON, installs what is missing, and
# defines `headless` and `virtual_display`. Two variables steer it:
#   PYTHON=python3.12   take another interpreter
#   ALWAYS_VIRTUAL=yes  a virtual display is needed even where there is a real one
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV_PYTHON="$ROOT/.venv/bin/python"

# What Qt's wheels expect from the system: a file that is there when it is
# installed, and the Debian package that brings it.
LIBRARIES="
libEGL.so.1:libegl1
libGL.so.1:libgl1
libfontconfig.so.1:libfontconfig1
libglib-2.0.so.0:libglib2.0-0
libdbus-1.so.3:libdbus-1-3
libxkbcommon-x11.so.0:libxkbcommon-x11-0
libxcb-cursor.so.0:libxcb-cursor0
libxcb-icccm.so.4:libxcb-icccm4
libxcb-image.so.0:libxcb-image0
libxcb-keysyms.so.1:libxcb-keysyms1
libxcb-render-util.so.0:libxcb-render-util0
libxcb-shape.so.0:libxcb-shape0
libxcb-xinerama.so.0:libxcb-xinerama0
"

say() { printf '%s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
linux() { [ "$(uname -s)" = Linux ]; }
headless() { linux && [ -z "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; }

# Run a command on a virtual screen large enough for the whole window.
virtual_display() {
    if linux; then
        xvfb-run -a -s "-screen 0 1600x1000x24" "$@"
    else
        "$@"
    fi
}

missing_packages() {
    local known entry
    # ldconfig is outside an ordinary user's PATH on Debian.
    known="$(PATH="$PATH:/usr/sbin:/sbin" ldconfig -p)"
    for entry in $LIBRARIES; do
        [[ "$known" == *"${entry%%:*} "* ]] || echo "${entry##*:}"
    done
    if headless || [ -n "${ALWAYS_VIRTUAL:-}" ]; then
        command -v xvfb-run >/dev/null || echo xvfb
        command -v xauth >/dev/null || echo xauth
    fi
    if [ -z "${PYTHON:-}" ]; then
        command -v python3 >/dev/null || echo python3
        python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
    fi
}

install_packages() {
    local packages as_root=()
    mapfile -t packages < <(missing_packages)
    [ "${#packages[@]}" -gt 0 ] || return 0
    command -v apt-get >/dev/null ||
        die "Missing: ${packages[*]} (Debian names). There is no apt-get here; install them with your system's package manager and start again."
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null ||
            die "Missing: ${packages[*]}. As root, run: apt-get install ${packages[*]}"
        as_root=(sudo)
    fi
    say "Installing system packages: ${packages[*]}"
    "${as_root[@]}" apt-get update -q >&2 || say "apt-get update failed; trying with the package lists already here."
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends "${packages[@]}" >&2 ||
        die "apt-get could not install ${packages[*]}; its reason stands above."
}

# The environment is made anew only when something it was made from changed.
made_from() {
    "$1" --version
    echo "$ROOT"
    cat "$ROOT/constraints.txt" "$ROOT/pyproject.toml"
}

make_environment() {
    local python="${PYTHON:-python3}" stamp="$ROOT/.venv/made-from.txt"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "napari-cmunet needs Python 3.11 or newer; $python is $("$python" --version 2>&1). Name another one: PYTHON=python3.12 bash $0"
    if [ -x "$VENV_PYTHON" ] && cmp -s "$stamp" <(made_from "$python"); then
        return 0
    fi
    say "Making a virtual environment in $ROOT/.venv (minutes, the first time)."
    "$python" -m venv --clear "$ROOT/.venv"
    # From within ROOT, so that no path with spaces reaches pip's parser.
    (cd "$ROOT" && "$VENV_PYTHON" -m pip install --disable-pip-version-check \
        -c constraints.txt -e ".[all,test]" >&2)
    made_from "$python" >"$stamp"
}

if linux; then install_packages; fi
make_environment
