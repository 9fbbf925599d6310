# `make run` and `make test` work as the first command on a fresh clone.
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
SHARD ?= 1/1
# Tests side by side, each with one thread.
JOBS ?= 2

.PHONY: run test test-all lint bench clean

run: $(VENV)/.installed
	$(BIN)/framp-private train

test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) -m "not slow"

# Everything, slow cases included; SHARD=i/n runs the i-th of n parts.
test-all: $(VENV)/.installed
	$(BIN)/python -m pytest -q --shard $(SHARD)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/engine_overhead.py
	$(BIN)/python benchmarks/clients_scaling.py

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
