#!/usr/bin/env bash
# Run steps of benchmarks/gpu: run.sh STEP... [--rehearse] [--budget SECONDS]; STEP is 1 to 7, a
# name, or all. See README.md. Needs a python3 with torch; PYTHON names another.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
export PYTHONPATH="$site:$(cd "$here/../.." && pwd)${PYTHONPATH:+:$PYTHONPATH}"
# A bare GPU machine has no mmengine: the wheels that wheels.sh fetched go into a folder of their
# own, each that Python does not have.
if compgen -G "$here/wheels/*.whl" > /dev/null; then
    mapfile -t lacking < <("$python" "$here/lacking.py" "$here"/wheels/*.whl)
    [ ${#lacking[@]} = 0 ] || "$python" -m pip install -q --no-index --no-deps --no-compile \
        --no-cache-dir --disable-pip-version-check --target "$site" "${lacking[@]}"
fi
# mmengine imports cv2, which steps 1 to 6 do not call.
"$python" -c 'import cv2' 2> /dev/null || touch "$site/cv2.py"
# Eight processes compile side by side (speed.py).
export TORCHINDUCTOR_COMPILE_THREADS=${TORCHINDUCTOR_COMPILE_THREADS:-4}
# Compiled kernels of one step serve the next, as long as the machine is held.
export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-/tmp/fastervit_inductor}
"$python" -W ignore -m benchmarks.gpu "$@"
