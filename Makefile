# What one does with a checkout. Needs Python 3.11+, git and make; everything else goes into .venv.
#
#   make PYTHON=python3.13 test     another Python (after `make clean`, if .venv is there)
#   make WORKERS=8 test             more tests at once
#   make ARGS="tests/http -x" test  some of them

PYTHON ?= python3
WORKERS ?= 2
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --no-input
# Stamps: what .venv holds. A file of requirements that changes is newer than its stamp.
RUNTIME := $(VENV)/.runtime
REQON := $(VENV)/.reqon
DEV := $(VENV)/.dev

.PHONY: help run test test-slow bench bench-parts check lint types floors format requirements clean
.DELETE_ON_ERROR:

help:
	@echo "make run        install, start the example API, run examples/missions as a daemon; Ctrl+C stops it"
	@echo "make test       install, run all tests (test-slow: in full numbers, for hours)"
	@echo "make check      lint, types, floors"
	@echo "make fuzz       mission texts of any kind, a minute long"
	@echo "make bench      compare whole processes with programs by hand (half an hour), into benchmarks/RESULTS.md"
	@echo "make format     bring the code into its form"
	@echo "make requirements   pin the newest versions of everything (needs uv)"
	@echo "make clean      remove .venv and caches"

run: $(REQON)
	@PATH="$(CURDIR)/$(BIN):$$PATH" exec examples/run.sh

test: $(DEV)
	$(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=worksteal $(ARGS)

test-slow: $(DEV)
	REQON_SLOW=1 $(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=worksteal --timeout=0 $(ARGS)

check: lint types floors

lint: $(DEV)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	@# These two come as programs for some platforms only.
	@if [ -x $(BIN)/shellcheck ]; then $(BIN)/shellcheck .ci/run examples/run.sh; fi
	@if [ -x $(BIN)/hadolint ] && [ -e Dockerfile ]; then $(BIN)/hadolint Dockerfile; fi

types: $(DEV)
	$(BIN)/mypy

floors: $(DEV)
	$(BIN)/lint-imports

format: $(DEV)
	$(BIN)/ruff check --fix-only --exit-zero
	$(BIN)/ruff format

bench: $(DEV)
	$(BIN)/python -m benchmarks --write $(ARGS)

bench-parts: $(DEV)
	$(BIN)/python -m pytest benchmarks/parts --benchmark-only --benchmark-columns=min,median,iqr --benchmark-time-unit=us --timeout=0 $(ARGS)

# Mission texts of any kind, for a minute or as long as FUZZ says: make fuzz FUZZ="-max_total_time=3600 -max_len=1200"
.PHONY: fuzz
FUZZ ?= -max_total_time=60 -max_len=1200
fuzz: $(DEV) requirements/fuzz.txt
	$(PIP) install --require-hashes --requirement requirements/fuzz.txt
	nice -n 19 $(BIN)/python tests/fuzz/fuzz_missions.py -print_final_stats=1 $(FUZZ)

# The files name no address and no index: pip asks the one that the machine is set to, and the hashes decide.
UV := uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links
requirements:
	$(UV) pyproject.toml --output-file requirements/runtime.txt
	$(UV) pyproject.toml --all-extras --constraints requirements/runtime.txt --output-file requirements/extras.txt
	$(UV) pyproject.toml --all-extras --group pyproject.toml:dev --constraints requirements/extras.txt --output-file requirements/dev.txt
	$(UV) --group pyproject.toml:fuzz --output-file requirements/fuzz.txt
	$(UV) --group pyproject.toml:build --constraints requirements/dev.txt --output-file requirements/build.txt
	@! grep -n '://' requirements/*.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .benchmarks .fuzz dist build

$(RUNTIME): requirements/runtime.txt requirements/build.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		f"Reqon needs Python 3.11 or newer, this is {sys.version.split()[0]}: make PYTHON=python3.13 …")'
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) install --require-hashes $(patsubst %,--requirement %,$^)
	@touch $@

$(REQON): $(RUNTIME) pyproject.toml
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): $(REQON) requirements/dev.txt
	$(PIP) install --require-hashes --requirement requirements/dev.txt
	@touch $@
