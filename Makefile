# make demo        the story of five nodes A-E on this machine
# make test        every test (rings 0 to 3), at most 12 minutes on two cores
# make check       format, lint, types, tests of the house: seconds
# make test-long   the simulation over many seeds, 300,000 bad transactions: make test-long SEEDS=200 LIES=3000000
# make test-stock  the transport and the functional tests on the library's own session and muxer, 6 to 8 minutes
# make bench       every figure that may stand in the documentation, about 15 minutes, up to 6 more with Syncthing; make bench ROWS="small curve" for some
# make lock        new locks after a change of dependencies in pyproject.toml (needs uv)
# make setup       what all of them do first; quick when nothing changed

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --no-input --quiet
SEEDS ?= 100
LIES ?= 300000
# Bytecode of what the tests and the demo start has a folder of its own, whatever the environment says of it: the tree stays clean, and
# none of the hundreds of processes compiles what another one has compiled.
KEEP_BYTECODE := env -u PYTHONDONTWRITEBYTECODE PYTHONPYCACHEPREFIX="$(CURDIR)/$(VENV)/.bytecode"
TEST := $(KEEP_BYTECODE) $(BIN)/python -m pytest
export PYTHON
export PYTHONDONTWRITEBYTECODE ?= 1

.PHONY: setup setup-dev demo test test-long test-stock check bench lock clean
.DELETE_ON_ERROR:

setup: $(VENV)/.installed

setup-dev: $(VENV)/.installed-dev

# The stamp is written last: an interrupted installation is simply done again. --clear when the environment does not start
# (moved folder, upgraded Python).
$(VENV)/.installed: pyproject.toml requirements-build.lock requirements.lock
	@python=$$(.ci/prerequisites) || exit 1; \
	if $(BIN)/python -c 'import pip' >/dev/null 2>&1; then :; else \
		echo "setup: virtual environment in $(VENV)"; $$python -m venv --clear $(VENV); fi
	@echo "setup: locked dependencies (a few minutes the first time)"
	@$(PIP) --require-hashes --only-binary :all: -r requirements-build.lock
	@$(PIP) --require-hashes --no-build-isolation -r requirements.lock
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.lock
	@echo "setup: tools for tests and checks"
	@$(PIP) --require-hashes --no-build-isolation -r requirements-dev.lock
	@touch $@

demo: setup
	$(KEEP_BYTECODE) $(BIN)/lading demo

test: setup-dev
	$(TEST) -n 4 --dist loadgroup --no-loadscope-reorder tests

test-long: setup-dev
	LADING_SEEDS=$(SEEDS) LADING_LIES=$(LIES) $(TEST) tests/simulation tests/protocols/ledger/test_lies.py

test-stock: setup-dev
	LADING_LANE=stock $(TEST) -n 4 --dist loadgroup --no-loadscope-reorder tests/node/transport tests/functional

check: setup-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(TEST) tests/house

bench: setup-dev
	$(BIN)/python -m benchmarks $(ROWS)

# Only names, versions and hashes of all wheels and source archives: no index address and no path may stand in a lock.
UV_COMPILE = env -u PIP_FIND_LINKS -u UV_FIND_LINKS uv --no-config pip compile --quiet --generate-hashes --universal \
	--python-version 3.11 --no-emit-index-url --no-emit-find-links --no-header

lock:
	printf 'setuptools>=77\nwheel>=0.45\n' | $(UV_COMPILE) --no-annotate -o requirements-build.lock -
	$(UV_COMPILE) -c requirements-build.lock -o requirements.lock pyproject.toml
	$(UV_COMPILE) --extra dev -c requirements-build.lock -c requirements.lock -o requirements-dev.lock pyproject.toml

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .hypothesis
