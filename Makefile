# Two commands:  make demo  and  make test.  Each makes its environment (.venv) if needed.

# The first working Python from 3.10 to 3.13; name another with  make demo PYTHON=...
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.10 python; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& echo $$p && break; done)
RUN := .venv/bin/python -W ignore
DEMO := work_dirs/demo
CONFIG := configs/mmdet/cascade_fvit_shapes.py
SEG_DEMO := work_dirs/demo-seg
SEG_CONFIG := configs/mmseg/upernet_fvit_shapes.py
CLS_DEMO := work_dirs/demo-cls
# Photographs if data/imagenette has them (docs/imagenet.md), else generated shapes.
CLS_CONFIG := configs/mmpretrain/fastervit_$(if $(wildcard data/imagenette/train),imagenette,shapes).py

.PHONY: help env shapes demo demo-seg demo-cls demo-hat bench docs test test-all scan soak fuzz matrix peers lint audit release clean distclean

help:
	@echo 'make demo   train a small Cascade Mask R-CNN on generated shapes, evaluate, draw;'
	@echo '            5 to 11 minutes of training on two cores'
	@echo 'make demo-seg   the same with a small UperNet, for semantic segmentation'
	@echo 'make demo-cls   a small classifier: of photographs in data/imagenette, else of shapes'
	@echo 'make demo-hat   the use of carriers: networks with and without them, on the long-range task'
	@echo 'make bench  compare speed with other backbones, in two minutes'
	@echo 'make docs   the documentation as a site, in work_dirs/site'
	@echo 'make test   the test suite, 12 minutes on two cores'
	@echo 'make test-all   the same with long tests, demos and laboratory; before a release'
	@echo 'make scan   run the checks on all configs of mmdet, mmseg and mmpretrain; 10 minutes'
	@echo 'make soak   kill a training 20 times, resume it, compare the results; about 10 minutes'
	@echo 'make fuzz   damage checkpoints, annotations and configs, 10 minutes each; MINUTES=1 for less'
	@echo 'make matrix test with other versions of torch and mmcv; an hour or two'
	@echo 'make peers  run the tests of timm, segmentation_models_pytorch and transformers on FasterViT'
	@echo 'make lint   ruff and mypy'
	@echo 'make audit  list licences and known vulnerabilities of packages in .venv; asks pypi.org'
	@echo 'make release   build and check sdist and wheel; list what is left to a person'
	@echo 'make env    make only the environment, .venv; 2 to 5 minutes the first time'
	@echo 'make clean  remove results of runs (keeps .venv); make distclean removes .venv too'

env:
	@test -n "$(PYTHON)" || { echo 'No Python from 3.10 to 3.13 was found. Install one (Debian,' \
	'Ubuntu: sudo apt install python3.11 python3.11-venv), or name it:' \
	'make demo PYTHON=/path/to/python3.11' >&2; exit 1; }
	@$(PYTHON) tools/make_env.py

# Generated data of the demos.
shapes: env
	@$(RUN) -m benchmarks.shapes

demo: shapes
	@$(RUN) -m benchmarks.demo $(CONFIG) --work-dir $(DEMO)

demo-seg: shapes
	@$(RUN) -m benchmarks.demo $(SEG_CONFIG) --work-dir $(SEG_DEMO)

demo-cls: $(if $(findstring shapes,$(CLS_CONFIG)),shapes,env)
	@$(RUN) -m benchmarks.demo $(CLS_CONFIG) --work-dir $(CLS_DEMO)

demo-hat: env
	@$(RUN) -m benchmarks.long_range.demo --work-dir work_dirs/demo-hat

# Longer measurements: docs/performance.md.
bench: env
	@$(RUN) -m benchmarks.speed --models authors-2:eager fastervit-2:onednn \
	fastervit-2:onednn+deployed swin-t:onednn convnext-t:onednn+channels_last --sizes 400x640 \
	--out work_dirs/bench/cpu

docs: env
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

# Three workers, a file at a time each: on two cores one often waits for a process it started.
PYTEST := -m pytest -n 3 --dist loadfile --no-loadscope-reorder --durations=15

test: env
	$(RUN) $(PYTEST) -m "not long" $(TESTS)

# Before a release: also the long tests, the laboratory and its demos.
test-all: env
	$(RUN) $(PYTEST) tests benchmarks/tests

scan: env
	$(RUN) -m pytest -n auto --maxprocesses 4 tests/configs/test_installed.py

# Kills come at random: in a step, in a validation, while a checkpoint is written.
soak: env
	$(RUN) -m benchmarks.soak --kills 20 --epochs 16 --out work_dirs/soak.json

# Results: docs/distributed.md#fuzzing.
MINUTES := 10
fuzz: env
	$(RUN) -m tests.fuzz.campaign --minutes $(MINUTES)

# One row:  make matrix ROWS=torch-2.1.  Writes the table of docs/install.md.
matrix:
	@$(PYTHON) tools/make_matrix.py $(if $(ROWS),--rows $(ROWS))

# Results: docs/peers.md.
peers: env
	@$(RUN) -m benchmarks.peers

lint: env
	$(RUN) -m ruff check .
	$(RUN) -m mypy

audit: env
	@$(RUN) tools/make_audit.py

release: env
	@$(RUN) tools/make_release.py

clean:
	rm -rf work_dirs data/shapes data/long_range build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache

distclean: clean
	rm -rf .venv .audit
