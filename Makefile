# Every target works from a fresh clone. Needs Python 3.11 or 3.12 and a package index; nothing else.
SECONDS_ARG = $(if $(filter command line,$(origin SECONDS)),--seconds $(SECONDS),)
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do command -v $$p >/dev/null 2>&1 && \
	$$p -c 'import sys; raise SystemExit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
BIN = .venv/bin

.PHONY: install demo test lint bench chaos
.DEFAULT_GOAL := install

install: .venv/installed  ## .venv with everything, audiopixel included

.venv/installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "audiopixel needs Python 3.11 or 3.12 (Bytewax has no wheels for others); none was found. Install one, or say make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: install  ## a live demonstration on loopback; SECONDS=n ends by itself
	@$(BIN)/audiopixel demo $(SECONDS_ARG)

test: install
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install
	@$(BIN)/python -m benchmarks $(BENCH)

chaos: install
	@$(BIN)/python -m benchmarks.chaos $(CHAOS)
