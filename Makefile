# What a developer and CI run. Every target sets up what it needs; nothing is installed by hand.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
# A node imports some thousand modules; where none may be kept compiled, each start compiles them.
unexport PYTHONDONTWRITEBYTECODE
BIN := .venv/bin

.PHONY: help install demo test others lint bench fuzz soak supply docs proto lock clean
.DEFAULT_GOAL := help

help: ## Show the targets.
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 20

install: ## Make .venv with everything, from the lock file; does nothing when it is current.
	@tools/install.sh

demo: install ## A whole cluster on this machine, shown at work; ARGS=--keep leaves it up.
	@$(BIN)/penstock demo $(ARGS)

# Two at once leave a third of two processors idle, as tests wait for processes and disks: one more.
# Long files are begun first: tests/conftest.py.
test: install ## Everything CI runs; ARGS are pytest's.
	@$(MAKE) --jobs=2 lint others
	@$(BIN)/pytest --numprocesses=$$(($$(nproc) + 1)) --maxprocesses=4 --dist=loadfile --no-loadscope-reorder $(ARGS)

others: install
	@$(BIN)/python tools/check_resolve.py
	@tools/peers.sh
	@tools/vllm.sh

lint: install ## Style, formatting and types.
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet || { \
	    echo "run: $(BIN)/ruff format" >&2; exit 1; }
	@$(BIN)/mypy --no-error-summary

bench: install ## Every benchmark beside its peers, at full size; ARGS="streams cold" runs some.
	@tools/peers.sh
	@$(BIN)/python bench $(ARGS)

fuzz: install ## Every parser, a million inputs each, led by coverage; ARGS="tickets --seconds 60" fewer.
	@tools/fuzz.sh
	@$(BIN)/python -m tests.fuzz $(ARGS)

soak: install ## Ten minutes of work with faults, in which nothing may grow; ARGS="--minutes 2 --seed 5".
	@$(BIN)/python -m penstock_node.testbed.soak $(ARGS)

supply: install ## What a release ships, into dist/: licences, reproducible builds, SBOM, pip-audit.
	@tools/supply.sh

docs: install ## The user guide, its reference read from the sources, into docs/_build.
	@$(BIN)/sphinx-build -q -W --keep-going docs docs/_build

proto: ## Generate the committed stubs from proto/.
	@tools/proto.sh

lock: install ## Renew the pins of requirements.lock from pyproject.toml.
	@$(BIN)/uv pip compile pyproject.toml --quiet --upgrade --extra dev --universal --override tools/lock-overrides.txt \
	    --python-version 3.11 --custom-compile-command 'make lock' --output-file requirements.lock

clean: ## Remove all that the other targets made.
	@rm -rf .venv .venv-proto .venv-supply .venv-vllm dist docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis .fuzz
	@find client cachenode tests bench tools -name __pycache__ -type d -exec rm -rf {} +
