#!/usr/bin/env bash
# Open napari on a synthetic cine, pre-segmented, in the CM-UNet panel.
# Arguments go to `napari-cmunet demo`. On a machine without a display the
# window's picture is saved instead, as demo.png in the current folder.
set -euo pipefail
# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

if ! headless; then
    exec "$VENV_PYTHON" -m napari_cmunet demo "$@"
fi
if [[ " $* " != *" --screenshot"* ]]; then
    set -- --screenshot "$PWD/demo.png" "$@"
    say "No display here: the window opens on a virtual one."
    virtual_display "$VENV_PYTHON" -m napari_cmunet demo "$@"
    say "The window's picture: $PWD/demo.png"
else
    virtual_display "$VENV_PYTHON" -m napari_cmunet demo "$@"
fi
