#!/usr/bin/env bash
# Run the test suite under a virtual display. Arguments go to pytest; paths in
# them count from the top of the checkout.
set -euo pipefail
ALWAYS_VIRTUAL=yes # windows must not pop up on the desktop
# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

cd "$ROOT"
# The display is already there: pytest-xvfb need not start a second one.
virtual_display "$VENV_PYTHON" -m pytest --no-xvfb "$@"
