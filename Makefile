# Every target creates what it needs; python3 with pip and venv is all a machine must have.
PYTHON := .venv/bin/python

# PyPI's Linux build of torch brings gigabytes of CUDA along. Where there is no GPU, PyTorch's own
# index gives the CPU build of the same release, unless this machine names its own wheels.
HAS_OWN_WHEELS := $(shell python3 -m pip config list 2>/dev/null | grep find-links)
HAS_GPU := $(shell command -v nvidia-smi 2>/dev/null)
TORCH_INDEX ?= $(if $(HAS_OWN_WHEELS)$(HAS_GPU),,--extra-index-url https://download.pytorch.org/whl/cpu)
INSTALL := $(PYTHON) -m pip install -q -c constraints-cpu.txt $(TORCH_INDEX)

.PHONY: setup story train test test-long test-gpu check docs bench format

setup: .venv/.dev

# Two stamps, because a story needs neither the training packages nor the tools.
.venv/.core: pyproject.toml constraints-cpu.txt | $(PYTHON)
	$(INSTALL) -e .
	touch $@

.venv/.dev: pyproject.toml constraints-cpu.txt | $(PYTHON)
	$(INSTALL) -e '.[train,dev]'
	touch .venv/.core $@

$(PYTHON):
	python3 -m venv .venv

story: .venv/.core
	$(PYTHON) -m unimm.cli story "Mia the fox finds a red balloon." --num-images 4 --seed 15 --output story.html

train: .venv/.dev
	$(PYTHON) train/pretrain.py train/configs/nano.yaml

test: check
	$(PYTHON) -m pytest -q -m "not long and not gpu" tests

test-long: .venv/.dev
	$(PYTHON) -m pytest -q -m "long and not gpu" tests

test-gpu: .venv/.dev
	$(PYTHON) -m pytest -q -m gpu tests

check: .venv/.dev
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/pyright
	.venv/bin/lint-imports --no-logo
	.venv/bin/codespell

format: .venv/.dev
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

docs: .venv/.core
	$(PYTHON) docs/render_tables.py
	$(PYTHON) docs/render_file_map.py

bench: .venv/.core
	$(PYTHON) eval/benchmark_world.py
	$(PYTHON) eval/benchmark_generation.py storyworld --batch-sizes 1 4 --context 0 1 3
	$(PYTHON) train/benchmark_loader.py
