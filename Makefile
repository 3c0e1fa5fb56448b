# `make help` says what there is. Everything runs in .venv, from exact pins, on Python 3.11 where there is one.

PYTHON ?= $(shell .ci/find-python 3.11 3.12 3.13)
UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
UV_STAMP := $(VENV)/.uv-$(UV_VERSION)
IS_SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
RUN := $(VENV)/.run-$(shell cat setup.cfg constraints.txt pyproject.toml 2>/dev/null | cksum | cut -d' ' -f1)
DEV := $(subst .run-,.dev-,$(RUN))
# The environments of `make oldest` and `make python`; VERSION is that of the interpreter.
OLDEST := .venv-oldest
OTHER := .venv-$(VERSION)
checksum = $(shell cat setup.cfg pyproject.toml $(1) 2>/dev/null | cksum | cut -d' ' -f1)
OLDEST_STAMP := $(OLDEST)/.test-$(call checksum,constraints-oldest.txt)
OTHER_STAMP := $(OTHER)/.test-$(call checksum,constraints.txt)
# With indirect dependencies of that day: MLflow 3.5 fails with the SQLAlchemy of a year later.
OLDEST_DAY := 2025-12-15
FLOORS := sed -n '/^install_requires/,/^$$/s/^ *\([a-z-]*\).*>=\([^,]*\),.*/\1==\2/p' setup.cfg
# Tests run side by side, a file in one process, each with one thread: PyTorch would start one for each core.
TEST_PROCESSES ?= $(shell n=$$(nproc); echo $$((n < 8 ? n : 8)))
# What tests are told of the processor: that it has bf16 (yes), has it not (no), or each in turn.
BF16 ?= both
SIDE_BY_SIDE := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --bf16=$(BF16)
# A session of Ray takes 2 to 3 GB, and waits much: two of them at a time, each with the tests of one file.
RAY_TEST_PROCESSES ?= 2
WITH_RAY := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(RAY_TEST_PROCESSES) --dist loadfile
FAULTS := $(wildcard tests/integration/test_*_faults.py)
PACKAGES := orchestrator trainables search_spaces cluster
SOURCES := $(PACKAGES) tests
# Any Python with PyTorch and pydantic: the worker's side needs no Ray, and a machine with a GPU may have no .venv.
GPU_PYTHON ?= $(shell test -x $(BIN)/python && echo $(BIN)/python || echo python3)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test some check unit numerics integration slow faults with-ray oldest python pictures demo-seeds bench gpu pins clean distclean
.NOTPARALLEL:

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(DEV) ## make .venv with all that development needs

demo: $(RUN) ## from nothing to a champion: the shipped experiment "digits", no download of data
	$(BIN)/stillhouse run digits

test: check some integration ## all checks, and what tests there are in ten minutes; CI runs them all
	@echo; echo "== all passed"

some: $(DEV) ## unit tests and numerics, of parametrised ones every eighth variant: three minutes
	@echo; echo "== unit tests and numerics, some variants"
	STILLHOUSE_GPU_TEST_DEVICE=cpu $(SIDE_BY_SIDE) --some-variants -m "not slow" tests/unit tests/gpu tests/numerics

check: $(DEV) ## format, lint, types, import contracts, size budgets
	@echo; echo "== format"
	$(BIN)/ruff format --check $(SOURCES)
	@echo; echo "== lint"
	$(BIN)/ruff check $(SOURCES)
	@echo; echo "== types"
	$(BIN)/mypy
	@echo; echo "== import contracts"
	$(BIN)/lint-imports
	@echo; echo "== size budgets"
	$(BIN)/python tests/size_budgets.py $(PACKAGES)

unit: $(DEV) ## tests without Ray, network and GPU: four to ten minutes
	@echo; echo "== unit tests"
	STILLHOUSE_GPU_TEST_DEVICE=cpu $(SIDE_BY_SIDE) -m "not slow" tests/unit tests/gpu

numerics: $(DEV) ## tests of the mathematics against worked numbers
	@echo; echo "== numerics"
	$(SIDE_BY_SIDE) tests/numerics

integration: $(DEV) ## tests with real Ray and real MLflow that take less than half a minute each
	@echo; echo "== integration"
	$(WITH_RAY) -m "not slow" tests/integration $(FAULTS:%=--ignore=%)

slow: $(DEV) ## the longer ones, in CI too: whole runs, jobs on a cluster, every pair of networks
	@echo; echo "== slow"
	$(WITH_RAY) -m slow tests/integration $(FAULTS:%=--ignore=%)

with-ray: $(DEV) ## integration, slow and faults in one go, as CI has them
	@echo; echo "== integration, slow and faults"
	$(WITH_RAY) tests/integration

faults: $(DEV) ## tests that kill workers, nodes, brokers and drivers, in CI too: about ten minutes
	@echo; echo "== faults"
	$(WITH_RAY) $(FAULTS)

define proved_in
	@echo; echo "== unit tests and numerics in $(1)"
	$(SIDE_BY_SIDE:$(BIN)/%=$(1)/bin/%) --some-variants -m "not slow" tests/unit tests/numerics
	@echo; echo "== a whole run in $(1)"
	rm -rf $(1)/whole_run
	OMP_NUM_THREADS=1 $(1)/bin/stillhouse run tests/whole_run.yaml --out $(1)/whole_run
endef

oldest: $(OLDEST_STAMP) ## unit and numerics with some variants, and one whole run, with the lowest versions of setup.cfg
	$(call proved_in,$(OLDEST))

python: $(OTHER_STAMP) ## the same with another interpreter: make python VERSION=3.13
	$(call proved_in,$(OTHER))

bench: $(DEV) ## measurements; ONLY=name for one of them
	$(BIN)/python -m tests.benchmarks $(ONLY)

pictures: demo $(DEV) ## the README's pictures, of what `make demo` left, by the test of the newcomer's path
	STILLHOUSE_DEMO=out/digits STILLHOUSE_PICTURES=docs/pictures OMP_NUM_THREADS=1 $(BIN)/python -m pytest \
		-k newcomer tests/integration/test_digits_job.py

demo-seeds: $(DEV) ## the demo with five seeds, and one of them twice: what it shows, and shows again
	$(BIN)/python -m tests.benchmarks.demo_seeds

gpu: ## tests and measurements that need a GPU; GPU_PYTHON=python3 without .venv, ONLY=name for one of them
	@$(GPU_PYTHON) -m tests.benchmarks.gpu $(GPU_FLAGS) $(ONLY)

pins: $(DEV) ## write the installed versions to constraints.txt, the lowest to constraints-oldest.txt
	$(UV) pip freeze --exclude-editable --python $(BIN)/python > $(VENV)/installed.txt
	@{ sed -n '/^#/p' constraints.txt; \
		$(UV) pip compile setup.cfg --extra dev --constraint $(VENV)/installed.txt --python $(BIN)/python \
			--no-annotate --no-header --quiet; } > constraints.new && mv constraints.new constraints.txt
	$(FLOORS) > $(VENV)/floors.txt
	@{ sed -n '/^#/p' constraints-oldest.txt; \
		$(UV) pip compile setup.cfg --extra test --constraint $(VENV)/floors.txt --resolution lowest-direct \
			--exclude-newer $(OLDEST_DAY) --python-version 3.11 \
			--no-annotate --no-header --quiet; } > constraints.new && mv constraints.new constraints-oldest.txt
	@git --no-pager diff --stat -- constraints.txt constraints-oldest.txt

clean: ## remove caches
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build *.egg-info
	find . -name __pycache__ -not -path './.venv*/*' -prune -exec rm -rf {} +

distclean: clean ## remove caches and all environments; results in out/ stay
	rm -rf $(VENV) .venv-*

$(UV_STAMP):
	@test -x $(BIN)/python || { $(PYTHON) -c '$(IS_SUPPORTED)' && $(PYTHON) -m venv $(VENV); } || { \
		echo "cannot make $(VENV) with '$(PYTHON)': Python 3.11, 3.12 or 3.13 and its venv module are needed" \
			"(Debian: apt-get install python3.11-venv); to name one: make PYTHON=/path/to/python3.11" >&2; \
		exit 1; }
	@$(BIN)/python -c '$(IS_SUPPORTED)' || { \
		echo "$(VENV) holds another Python than 3.11, 3.12 or 3.13; remove it: make distclean" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

# The stamp's name holds a checksum of the files that say what is installed.
$(RUN): $(UV_STAMP)
	$(UV) pip install --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable .
	@rm -f $(VENV)/.run-* $(VENV)/.dev-*; touch $@

$(DEV): $(UV_STAMP)
	$(UV) pip install --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	@rm -f $(VENV)/.run-* $(VENV)/.dev-*; touch $@ $(RUN)

# Not compiled as a whole: of what is installed, few modules are imported there.
define installed_in
	@found=$$(.ci/find-python $(2)) && rm -rf $(1) && $(UV) venv --quiet --python "$$found" $(1)
	$(UV) pip install --python $(1)/bin/python $(3) --editable '.[test]'
	@touch $@
endef

$(OLDEST_STAMP): $(UV_STAMP)
	$(call installed_in,$(OLDEST),3.11,--constraint constraints-oldest.txt --resolution lowest-direct)

$(OTHER_STAMP): $(UV_STAMP)
	@test -n "$(VERSION)" || { echo "with which interpreter? make python VERSION=3.13" >&2; exit 1; }
	$(call installed_in,$(OTHER),$(VERSION),--constraint constraints.txt)
