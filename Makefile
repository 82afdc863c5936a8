# Two commands matter: `make lab` opens the lessons, `make test` runs the tests. Each works alone in a fresh clone.
#
#   PYTHON       which Python makes the environment (3.11 or newer; found by itself)
#   TORCH_INDEX  a package index to take torch from, e.g. PyTorch's CPU builds on Linux
#   DIR          where `make lab` puts your copy of the lessons
#   LAB_FLAGS    more flags for `llmlab lab`, e.g. --no-browser
#   PYTEST_FLAGS more flags for pytest, e.g. -x

TORCH_INDEX ?=
DIR ?= lessons
LAB_FLAGS ?=
PYTEST_FLAGS ?=

# The first that starts and is new enough: a name on the path may be a shim with nothing behind it.
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13 python3.14 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)

BIN := .venv/bin
PIP := $(BIN)/python tools/pip_progress.py install -c constraints.txt
TORCH := $(shell grep '^torch==' constraints.txt)
NBVAL := --nbval --nbval-current-env --nbval-cell-timeout 600 --nbval-sanitize-with tests/course/nbval_sanitize.cfg

# Test files side by side, a file's tests in one process; each process has one thread.
SIDE_BY_SIDE := -n logical --maxprocesses 4 --dist loadfile

# One thread: results then do not depend on how many cores a machine has, and the tiny models lose nothing by it.
ONE_THREAD := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false

.DELETE_ON_ERROR:
.PHONY: help lab check test test-all parity bench refresh time clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' Makefile

lab: .venv/.lab  ## copy the lessons to DIR (default: lessons) and open them in JupyterLab
	@echo "[3] Opening the lessons in $(DIR) (Ctrl-C twice ends JupyterLab)"
	@$(BIN)/llmlab lab "$(DIR)" $(LAB_FLAGS)

check: .venv/.dev  ## style, types and the quick tests, in about two minutes
	@echo "[3] Style and types"
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@echo "[4] Quick tests"
	@$(ONE_THREAD) $(BIN)/python -m pytest tests -q $(SIDE_BY_SIDE) -m "not slow and not browser and not bench" $(PYTEST_FLAGS)

test: .venv/.dev  ## style, types, tests, every notebook, the browser; not other front ends, benchmarks, every set of techniques
	@echo "[3] Tests and notebooks (at most 20 minutes on two cores)"
	@$(ONE_THREAD) $(BIN)/python -m pytest tests $(wildcard course) $(NBVAL) $(SIDE_BY_SIDE) -m "not bench and not frontends and not exhaustive" $(PYTEST_FLAGS)

test-all: .venv/.bench  ## `make test`, every lesson in every front end, every set of techniques, and the tests against peers
	@echo "[3] Tests, notebooks, front ends and comparisons with peers"
	@$(ONE_THREAD) $(BIN)/python -m pytest tests $(wildcard course) $(NBVAL) $(SIDE_BY_SIDE) $(PYTEST_FLAGS)

parity: .venv/.bench .venv-adapters/.ready  ## the same numbers as transformers, peft, adapters and NumPy, and the greatest differences
	@echo "[3] Beside transformers, peft and NumPy"
	@$(ONE_THREAD) $(BIN)/python -m pytest tests/parity --errors $(PYTEST_FLAGS)
	@echo "[4] Beside adapters, with the older transformers that it pins"
	@$(ONE_THREAD) .venv-adapters/bin/python -m pytest tests/parity -m bench --errors $(PYTEST_FLAGS)

bench: .venv/.bench  ## time and memory side by side with peer libraries
	@echo "[3] Benchmarks"
	@$(BIN)/python -m benchmarks

refresh: .venv/.dev  ## run every notebook again and store its outputs
	@$(BIN)/ruff format -q course
	@$(ONE_THREAD) $(BIN)/python tools/refresh_notebooks.py

time: .venv/.dev  ## what the cells of each lesson take on two threads, three runs each
	@$(BIN)/python tools/refresh_notebooks.py --time

clean:  ## remove the environment, caches and builds; never lessons/ or runs/
	rm -rf .venv .venv-adapters build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find llmlab plugins tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# The files .venv/.lab, .dev and .bench say what is installed; a changed version file makes them out of date.
.venv/.python:
	@if [ -z "$(PYTHON)" ]; then \
		echo "llmlab needs Python 3.11 or newer and found none. Name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "llmlab needs Python 3.11 or newer; $(PYTHON) is older or does not start. Name another with PYTHON=…" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) cannot make environments. On Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "[1] Making a Python environment in .venv, with $(PYTHON)"
	@$(PYTHON) -m venv .venv
	@touch $@

.venv/.torch: .venv/.python constraints.txt
ifneq ($(TORCH_INDEX),)
	@echo "[2] Installing $(TORCH) from $(TORCH_INDEX)"
	@$(BIN)/python tools/pip_progress.py install --index-url "$(TORCH_INDEX)" "$(TORCH)"
endif
	@touch $@

.venv/.lab: .venv/.torch pyproject.toml constraints.txt
	@echo "[2] Installing llmlab and what it needs (once, about two minutes)"
	@$(PIP) -e .
	@touch $@

.venv/.dev: .venv/.torch pyproject.toml constraints.txt
	@echo "[2] Installing llmlab, what it needs and the test tools (once, about two minutes)"
	@$(PIP) -e ".[test,dev]"
	@touch .venv/.lab $@

.venv/.bench: .venv/.torch pyproject.toml constraints.txt benchmarks/constraints.txt
	@echo "[2] Installing llmlab, the test tools, other front ends and the peer libraries (once, about two minutes)"
	@$(PIP) -c benchmarks/constraints.txt -e ".[test,dev,frontends,bench]"
	@touch .venv/.lab .venv/.dev $@

# A second environment, for the one peer that does not live beside the others; every version that its file does not name is
# that of constraints.txt.
.venv-adapters/.ready: .venv/.torch pyproject.toml constraints.txt benchmarks/constraints-adapters.txt
	@echo "[2] Installing the library adapters in .venv-adapters (once, about two minutes)"
	@test -x .venv-adapters/bin/python || $(PYTHON) -m venv .venv-adapters
	@awk -F == 'NR == FNR {named[$$1]} NR == FNR || !($$1 in named)' benchmarks/constraints-adapters.txt constraints.txt > .venv-adapters/constraints.txt
ifneq ($(TORCH_INDEX),)
	@.venv-adapters/bin/python tools/pip_progress.py install --index-url "$(TORCH_INDEX)" "$(TORCH)"
endif
	@.venv-adapters/bin/python tools/pip_progress.py install -c .venv-adapters/constraints.txt -e ".[bench-adapters]"
	@touch $@
