#!/usr/bin/env bash
# Fetch what a bare GPU machine lacks, as wheels for its Python (3.12, x86-64), into an ignored
# folder that travels there. Some 30 MB. run.sh installs only what the machine does not have.
set -euo pipefail
cd "$(dirname "$0")"
rm -rf wheels && mkdir wheels
tags=(manylinux_2_28_x86_64 manylinux_2_27_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64)
"${PYTHON:-python3}" -m pip download -q --no-deps --only-binary=:all: --dest wheels \
    --python-version "${FOR:-3.12}" --implementation cp "${tags[@]/#/--platform=}" \
    --constraint ../../constraints.txt \
    mmengine timm fastervit addict yapf platformdirs termcolor rich markdown-it-py mdurl pygments \
    pycocotools numpy pyyaml safetensors packaging mmcv-lite mmdet shapely terminaltables six tqdm \
    setuptools
ls -l wheels
