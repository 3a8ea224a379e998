# Every target works from a fresh clone. Needs a Python 3.11 or newer and a package index; nothing else.
SECONDS_ARG = $(if $(filter command line,$(origin SECONDS)),--seconds $(SECONDS),)
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do command -v $$p >/dev/null 2>&1 && \
	$$p -c 'import sys; raise SystemExit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
BIN = .venv/bin

.PHONY: install demo test test-all lint lock audit bench chaos archive simulation fuzz help
.DEFAULT_GOAL := install

install: .venv/installed  ## .venv with everything, audiopixel included

# Bytewax has no wheels for other Pythons than 3.11 and 3.12. Where neither is found, uv downloads one; pip brings uv.
$(BIN)/python:
ifneq ($(PYTHON),)
	@$(PYTHON) -m venv .venv
else
	@echo "neither Python 3.11 nor 3.12 was found: uv downloads a Python 3.12 for .venv"
	@uv=$$(mktemp -d) && trap 'rm -rf "$$uv"' EXIT && { \
	python3 -m venv $$uv && $$uv/bin/python -m pip install --quiet --disable-pip-version-check uv && \
	$$uv/bin/uv venv --quiet --allow-existing --seed --python 3.12 .venv; } || { \
	echo "audiopixel needs Python 3.11 or 3.12 (Bytewax has no wheels for others); none was found, and uv of $$(command -v python3 || echo 'no python3') could not download one. Install one, or say make PYTHON=/path/to/python3.11"; exit 1; }
endif

# uv resolves and installs in a tenth of pip's time; pip alone brings it, and serves where it cannot be had.
define installed
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv || echo "no uv: pip takes a minute longer"
	@echo "installing audiopixel[$(1)] into .venv"
	@if test -x $(BIN)/uv; then $(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[$(1)]'; \
	else $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(1)]'; fi
	@touch $@
endef

.venv/installed: pyproject.toml | $(BIN)/python
	$(call installed,dev)
	@touch .venv/demo

.venv/demo: pyproject.toml | $(BIN)/python
	$(call installed,demo)

demo: .venv/demo  ## a live demonstration on loopback; SECONDS=n ends by itself
	@$(BIN)/audiopixel demo $(SECONDS_ARG)

test: install  ## the tests of a change, against real services: under four minutes on two quiet cores behind `make demo`, four and a third with nothing compiled
	$(BIN)/python -m pytest -n $(or $(WORKERS),4) --no-loadscope-reorder -m "not long"

test-all: install  ## all tests, the long ones too; PART=2/5 is one part of the long ones alone
	$(BIN)/python -m pytest -n $(or $(WORKERS),4) --no-loadscope-reorder $(if $(PART),--part $(PART))

lint: install  ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lock: install  ## renew the image's locked packages, with their hashes
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --custom-compile-command "make lock" $(LOCK) --extra buckets --extra sources pyproject.toml --output-file deploy/requirements.txt
	@$(BIN)/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['build-system']['requires'], sep='\n')" \
	| $(BIN)/uv pip compile --quiet --universal --generate-hashes --custom-compile-command "make lock" $(LOCK) - --output-file deploy/build-requirements.txt

audit: install  ## ask the package index for known vulnerabilities of what is installed; also fails where it does not answer
	@test -x .venv/audit/bin/pip-audit || { $(BIN)/python -m venv .venv/audit && .venv/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit; }
	@$(BIN)/python -m pip list --disable-pip-version-check --format=freeze --exclude-editable >.venv/audit/installed.txt
	.venv/audit/bin/pip-audit --strict --progress-spinner off --disable-pip --no-deps --requirement .venv/audit/installed.txt

bench: install  ## audiopixel against plain Bytewax, DuckDB and decoding alone; PEERS=1 against other engines; BENCH=--all is all benches, --readme writes their tables, --smoke is short
	@$(BIN)/python -m benchmarks $(if $(PEERS),--peers) $(BENCH)

chaos: install  ## kill and starve a live flow at random, and prove its numbers
	@$(BIN)/python -m benchmarks.chaos $(CHAOS)

archive: install  ## kill the writer of an archive KILLS=n times, and check what it wrote
	ARCHIVE_KILLS=$(or $(KILLS),100) $(BIN)/python -m pytest tests/flows/archive/test_archive_live.py -k repeatedly_killed -q -s --timeout 3600

simulation: install  ## play SEEDS=n histories of the whole flow in one thread, with everything going wrong
	@PYTHONPATH=tests $(BIN)/python -m simulation --seeds $(or $(SEEDS),1000) $(SIMULATION)

fuzz: install  ## INPUTS=n hostile inputs at each door; DOOR=name at one
	@PYTHONPATH=tests:tests/support:tests/flows/collector:clients/python $(BIN)/python -m fuzz --inputs $(or $(INPUTS),1000000) $(if $(DOOR),--door $(DOOR)) $(FUZZ)

help:  ## this list
	@sed -nE 's/^([a-z-]+):.*  ## (.*)/\1  \2/p' $(MAKEFILE_LIST) | while read -r target what; do printf '%-10s %s\n' "$$target" "$$what"; done
