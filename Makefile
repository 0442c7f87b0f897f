# Every target makes the virtual environment it needs: on a new machine, python3 >= 3.11 and make are enough.
.DEFAULT_GOAL := help
.PHONY: help demo test test-far test-here chaos soak simulate explore guests bench docs lint format clean

OLD_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11
PYTHON ?= $(shell for p in $(CANDIDATES); do "$$p" -c "$(OLD_ENOUGH)" 2>/dev/null && { echo "$$p"; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEERS := $(VENV)/.peers
GUESTS := $(VENV)/.guests
# Tests wait for half of their time: three at a time keep two cores busy.
JOBS ?= 3
# Files stay whole, and go out in the order of tests/turns.py. JOBS=0: one after the other, in one process.
PARALLEL := -n $(JOBS) --dist loadfile --no-loadscope-reorder
CHECKED := $(wildcard zmreg tests benchmarks examples docs/*.py)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
NAME_PEERS := import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
  print(*project["optional-dependencies"]["bench"], sep="\n")
# The tests start two thousand processes: with compiled modules at hand, half the processor time of each start.
unexport PYTHONDONTWRITEBYTECODE
CACHES := .coverage .coverage.* htmlcov .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1	\2/p' $(MAKEFILE_LIST)

demo: $(READY)  ## index and search the standard library's source with actors and tasks
	$(BIN)/zmreg demo $(ARGS)

test: $(READY)  ## the whole suite, JOBS files at a time (3); a few that fail in company have a second try, alone
	$(BIN)/python -m pytest --cache-clear $(PARALLEL) $(ARGS) || { code=$$?; test $$code -eq 1 \
	  && $(BIN)/python -m tests.turns .pytest_cache/v/cache/lastfailed \
	  && $(BIN)/python -m pytest --last-failed --last-failed-no-failures none $(ARGS); }

test-far: $(READY)  ## the tests of what users call, with all work, data and actors on another node (7 minutes)
	ZMREG_TEST_FAR=1 $(BIN)/python -m pytest tests/api $(ARGS)

test-here: $(READY)  ## the same on a cluster within the process, as far as they are not about processes (2 minutes)
	ZMREG_TEST_HERE=1 $(BIN)/python -m pytest tests/api $(ARGS)

chaos: $(READY)  ## kill -9 of random processes, 50 times: nothing may be left, lost or hang (ZMREG_CHAOS_SEED=n)
	ZMREG_CHAOS=$${ZMREG_CHAOS:-50} $(BIN)/python -m pytest tests/processes/test_leftovers.py tests/chaos \
	  -k random_moments $(ARGS)

soak: $(READY)  ## half an hour of random faults on a cluster under load: nothing acknowledged is lost (ZMREG_SOAK_SEED=n)
	ZMREG_SOAK_S=$${ZMREG_SOAK_S:-1800} $(BIN)/python -m pytest -s tests/processes/test_soak.py \
	  -o faulthandler_timeout=$$(($${ZMREG_SOAK_S:-1800} + 600)) $(ARGS)

simulate: $(READY)  ## the registry under bad weather: 1,000 small clusters and 10 of 1,000 nodes (ARGS="--first n")
	$(BIN)/python -m zmreg.testing.registry --seeds 1000 $(ARGS)
	$(BIN)/python -m zmreg.testing.registry --seeds 10 --nodes 1000 $(ARGS)

explore: $(READY)  ## what Hypothesis tries, 50 times as often (ZMREG_TEST_EFFORT=n)
	ZMREG_TEST_EFFORT=$${ZMREG_TEST_EFFORT:-50} $(BIN)/python -m pytest $(PARALLEL) --timeout 0 \
	  -o faulthandler_timeout=3600 tests -k "any_order or AnyOrder or every_byte" $(ARGS)

guests: $(GUESTS)  ## the guests' own tests on zmreg: CPython's of executors, joblib's, Dask's (12 minutes)
	$(BIN)/python -m tests.guests $(ARGS)

bench: $(PEERS)  ## zmreg beside its peers, in one run, as a table of ratios
	$(BIN)/python -m benchmarks $(ARGS)

docs: $(READY)  ## make the generated parts of the pages anew
	$(BIN)/python docs/generate.py

lint: $(READY)  ## ruff, mypy --strict, import contracts
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)  ## let ruff lay out the code and sort the imports
	$(BIN)/ruff check --select I --fix $(CHECKED)
	$(BIN)/ruff format $(CHECKED)

clean:  ## remove the environment and every cache
	rm -rf $(VENV) build dist $(CACHES)
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml
	@test -n "$(PYTHON)" && "$(PYTHON)" -c "$(OLD_ENOUGH)" || { \
	  echo "zmreg needs Python 3.11 or later, found '$(PYTHON)'. Next: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(PIP) --editable '.[test]'
	@touch $@

$(GUESTS): $(READY)
	$(PIP) --editable '.[test,guests]'
	@touch $@

# One by one: a peer that cannot be installed here must not keep the others out of the table.
$(PEERS): $(READY)
	@$(BIN)/python -c '$(NAME_PEERS)' | while read -r peer; do \
	  $(PIP) "$$peer" </dev/null || echo "skipped: $$peer could not be installed" >&2; \
	done
	@touch $@
