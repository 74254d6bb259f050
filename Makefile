# `make` lists the targets. Everything runs from .venv, which `make install` prepares.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
STAMP_DOCS := .venv/.installed-docs
SHELL := /bin/bash
.DEFAULT_GOAL := help

.PHONY: help install demo test tests test-slow lint types kernels docs figures reproduce zoo bench clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(STAMP) ## prepare .venv with everything a developer needs

$(STAMP): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $(STAMP)

demo: install ## train and analyse two small conv nets on digits (2 minutes)
	@set -e; sweep=outputs/demo-$$(date +%Y%m%d-%H%M%S); \
	$(BIN)/neuralmech train experiment=first_light hydra.sweep.dir=$$sweep; \
	$(BIN)/neuralmech analyze $$sweep

lint: install ## style and docstrings (ruff)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install ## static types (pyright)
	$(BIN)/pyright --pythonpath $(BIN)/python

test: install ## lint, types, tests and doctests (10 minutes on two cores)
	$(MAKE) --jobs 3 lint types tests

tests: kernels # beside the type check, which one core is enough for
	$(BIN)/python -m pytest -m "not slow" -n auto --dist worksteal

kernels: install # compiled before the tests, for else each process of them would compile them
	@set -e; folder=$$(mktemp -d); trap "rm -rf $$folder" EXIT; \
	$(BIN)/neuralmech train --multirun model=mlp train.precision=fp32,fp64 optim=sgd,adamw train.steps=2 device=cpu \
	  hydra.sweep.dir=$$folder >/dev/null

test-slow: install ## the tests that take minutes
	$(BIN)/python -m pytest -m slow -n auto --dist worksteal

docs: $(STAMP_DOCS) ## build the documentation with its reference into build/docs (20 seconds)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --config-file docs/site/mkdocs.yml
	@echo "open build/docs/index.html"

$(STAMP_DOCS): $(STAMP)
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	touch $(STAMP_DOCS)

figures: install ## train, measure and draw every figure of the documentation (3 minutes)
	$(BIN)/python scripts/figures.py

SCALE ?= small
reproduce: install ## hold every claim of the sources against a run, write docs/reproduction.md (4 minutes; SCALE=paper: on a GPU)
	$(BIN)/python scripts/reproduce.py --scale $(SCALE)

zoo: install ## find and verify the symmetries of well-known models, write docs/zoo.md (25 minutes)
	$(BIN)/python -m pip install --quiet --editable ".[zoo]"
	$(BIN)/python scripts/zoo.py --redo

bench: install ## measure what tracking costs, write docs/benchmarks.md (10 minutes)
	$(BIN)/python -m pip install --quiet tensorboard
	$(BIN)/python scripts/bench_track.py
	$(BIN)/python scripts/bench_start.py --write

clean: ## remove caches and build products, keep .venv and outputs/
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
