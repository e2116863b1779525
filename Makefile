PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := $(shell grep '^torch==' constraints.txt)

.PHONY: demo test lint mutants fuzz bench bench-peer clean

demo: $(VENV)/.core
	$(BIN)/transfusion demo

test: lint
	$(BIN)/python -m pytest

lint: $(VENV)/.dev
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/pyright

mutants: $(VENV)/.dev
	PYTHONPATH=tests $(BIN)/python -m mutants.run

# FUZZ_SECONDS=600 make fuzz: damaged files through every way in; a short form runs in `make test`
fuzz: $(VENV)/.dev
	PYTHONPATH=tests $(BIN)/python -m fuzz.run

bench: $(VENV)/.core
	$(BIN)/python -m benchmarks.train
	$(BIN)/python -m benchmarks.sample

# the comparison with transfusion-pytorch, every ratio in one table: about half an hour on 2 cores; let nothing else run
bench-peer: $(VENV)/.benchmark
	$(BIN)/python -m benchmarks.ratios

clean:
	rm -rf $(VENV)

# torch comes first and pinned: any other order lets the resolver take a build with gigabytes of CUDA libraries.
$(VENV)/.core: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.dev: $(VENV)/.core
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

$(VENV)/.benchmark: $(VENV)/.core
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[benchmark]'
	touch $@
