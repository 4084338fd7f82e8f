#!/usr/bin/env bash
# Gather all that an installation without the internet needs into one folder.
#
#   bash scripts/wheelhouse.sh DIR [options of pip download]
#
# DIR gets the wheel of this checkout with its models, the wheels of everything that it
# needs, of the versions in constraints.txt, and requirements.txt with their SHA-256.
# Options go to pip, for another system or another index:
#   --platform win_amd64 --python-version 3.12
#   --extra-index-url https://download.pytorch.org/whl/cpu
# EXTRAS=all,cluster,pacs are the optional parts; PYTHON=python3 the interpreter.
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
PYTHON="${PYTHON:-python3}"

[ $# -ge 1 ] || { sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
mkdir -p "$1"
OUT="$(cd "$1" && pwd)"
shift
[ -z "$(ls -A "$OUT")" ] || { echo "$OUT is not empty." >&2; exit 1; }

cd "$ROOT"
"$PYTHON" -m pip wheel --no-deps --wheel-dir "$OUT" .
"$PYTHON" -m pip download --only-binary=:all: --constraint constraints.txt \
    --dest "$OUT" "$@" "$(ls "$OUT"/napari_cmunet-*.whl)[${EXTRAS:-all,cluster,pacs}]"

"$PYTHON" - "$OUT" <<'END'
import hashlib, pathlib, sys
folder = pathlib.Path(sys.argv[1])
lines = []
for wheel in sorted(folder.glob("*.whl")):
    name, version = wheel.name.split("-")[:2]
    with wheel.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    lines.append(f"{name}=={version} --hash=sha256:{digest}\n")
(folder / "requirements.txt").write_text("".join(lines))
print(f"{len(lines)} wheels in {folder}")
END
