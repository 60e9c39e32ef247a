# `make demo` and `make test` work on a machine with Python 3.11 and nothing else; `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell command -v python3.11 || command -v python3)
TORCH := $(shell sed -n 's/.*"torch==\([0-9.]*\)".*/\1/p' pyproject.toml)
# Without bytecode every process compiles everything anew: Airflow then boots in 16 s instead of 7.
unexport PYTHONDONTWRITEBYTECODE

SPREAD := --dist loadfile --no-loadscope-reorder
# whole stacks at a time: one per core, two or three of them, as far as there is memory, 4 GB each; they boot one after the other
STACKS ?= $(shell awk -v n=$$(nproc) '/MemAvailable/ { n = n < 2 ? 2 : n > 3 ? 3 : n; fit = int($$2 / 4000000); n = fit < n ? fit : n; print (n < 1 ? 1 : n) }' /proc/meminfo)

.PHONY: help demo test check up down status doctor bench acceptance tagger install lock browser clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 20

demo: install ## start the stack and tell the whole story on it, with measured times
	$(BIN)/perennial demo $(DEMO)

test: install browser check ## every check and test, or those named by TESTS
ifdef TESTS
	$(BIN)/python -m pytest $(TESTS)
else
	@# side by side what shares nothing; then what runs on whole stacks
	status=0; \
	$(BIN)/python -m pytest -n logical --maxprocesses 8 $(SPREAD) -m 'not stack' || status=$$?; \
	$(BIN)/python -m pytest -n $(STACKS) $(SPREAD) -m stack $$(grep -rl --include='test_*.py' 'mark\.stack' tests) || status=$$?; \
	exit $$status
endif

check: install ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	@# the two slow ones side by side
	$(BIN)/mypy & types=$$!; $(BIN)/lint-imports && wait $$types

up: install ## start PostgreSQL, Airflow, MLflow and the data plane
	$(BIN)/perennial up

down: ## stop everything that `up` started
	if [ -x $(BIN)/perennial ]; then $(BIN)/perennial down; fi

status: install ## what runs, where and with how much memory
	$(BIN)/perennial status

doctor: install ## what is wrong, and what to do
	$(BIN)/perennial doctor

bench: install ## the figures of docs/performance.md, measured here
	for file in benchmarks/bench_*.py; do echo "== $$file"; PYTHONPATH=. $(BIN)/python $$file; done

acceptance: install ## the long runs behind docs/trust.md, three hours: AGNEWS=FILE HUFFPOST=FILE
	PYTHONPATH=include:. $(BIN)/python benchmarks/acceptance.py --agnews "$(AGNEWS)" --huffpost "$(HUFFPOST)" $(ACCEPTANCE)

tagger: install ## train the tagger of names from the templates in tagger/; the same file again on the same machine
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 PYTHONPATH=include $(BIN)/python tagger/train.py

install: $(VENV)/.installed ## the environment, once

$(VENV)/bin/python:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || \
	  { echo "Perennial needs Python 3.11, and '$(PYTHON)' is not: install it, or say make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -m venv $(VENV)

# torch by pip, which also looks where wheels lie on disk; its CUDA libraries are torch's own choice and not in the lock
$(VENV)/.torch: requirements.txt | $(VENV)/bin/python
	@echo "installing torch and what else is locked into $(VENV), once (one to four minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==$(TORCH) uv
	@touch $@

# --no-deps: the lock is complete, so nothing is resolved again
$(VENV)/.installed: requirements-dev.txt pyproject.toml $(VENV)/.torch
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --compile-bytecode -r requirements-dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

browser: ## a browser for the tests that look at pages, where it can be installed
	@if ! grep -rqs 'mark\.browser' tests; then exit 0; \
	elif command -v chromium >/dev/null && command -v chromedriver >/dev/null; then exit 0; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium chromium-driver) >/dev/null 2>&1 \
	    || echo "chromium could not be installed; tests marked 'browser' are skipped" >&2; \
	else echo "no chromium and no right to install it; tests marked 'browser' are skipped" >&2; fi

COMPILE = $(BIN)/uv pip compile --quiet --python-version 3.11 --no-annotate --no-header pyproject.toml --extra all
lock: $(VENV)/.torch ## pin again what pyproject.toml asks for
	keep() { grep -vE '^(nvidia|cuda|triton)' > $$1.new && mv $$1.new $$1; }; \
	$(COMPILE) | keep requirements.txt; \
	$(COMPILE) requirements-dev.in --constraint requirements.txt | keep requirements-dev.txt; \
	$(COMPILE) --extra celery --extra kubernetes --extra s3 --constraint requirements.txt | keep requirements-deploy.txt

clean: down ## remove the environment and the stack's state
	rm -rf $(VENV) .perennial .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
