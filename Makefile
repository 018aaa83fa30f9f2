# Penstock, one command each; `make` alone lists them. Python 3.11 or newer with venv is all that a machine must have.
# ARGS is passed on (`make test ARGS="-k sse -n0"`); PYTHON names the interpreter that .venv is made with.

ARGS ?=
PYTHON ?= python3.13 python3.12 python3.11 python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo serve test test-provider test-clients check bench soak soak-long lock install install-dev clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

demo: install ## see Penstock work, without a network and without a key
	@$(BIN)/penstock demo $(ARGS)

serve: install ## run the proxy (ARGS="--upstream URL" or "--config FILE")
	@$(BIN)/penstock serve $(ARGS)

test: install-dev ## run the tests
	@$(BIN)/pytest -n auto --dist worksteal $(ARGS)

test-provider: install-dev ## try a provider of yours (URL=… MODEL=… KEY_ENV=…): some 15 calls, one prompt of 5,000 tokens
	@test -n "$(URL)" -a -n "$(MODEL)" || { echo "penstock: which? make test-provider URL=https://…/v1 MODEL=…" >&2; exit 2; }
	@$(BIN)/pytest tests/provider -n0 -q -rs --tb=short --no-showlocals --provider-url '$(URL)' --provider-model '$(MODEL)' \
		$(if $(KEY_ENV),--provider-key-env '$(KEY_ENV)') $(ARGS)

test-clients: install ## try the clients of other makers (installs them in tests/clients; Node's where there is Node)
	@tests/clients/run $(ARGS)

check: install-dev ## lint, format and types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

bench: install-dev ## measure, each figure against a reference in the same run
	@$(BIN)/python -m bench $(ARGS)

soak: install-dev ## try each fault of the list at full size (ARGS="U2 U7": only these; ARGS=--help lists them)
	@$(BIN)/python -m bench.soak $(ARGS)

soak-long: install-dev ## half an hour of everything at once; what grows is a leak (ARGS="--minutes 3")
	@$(BIN)/python -m bench.soak.long $(ARGS)

# The oldest Python decides: it needs what newer ones need, and backports besides. The machine's own pip settings
# (mirrors, local wheels) must not show in what every machine installs.
compile = env -u PIP_FIND_LINKS -u PIP_EXTRA_INDEX_URL -u PIP_CONSTRAINT PIP_CONFIG_FILE=/dev/null \
	CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options $(ARGS)

lock: install-dev ## pin the dependencies anew (ARGS=--upgrade, or "--upgrade-package NAME")
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "penstock: locks are made with Python 3.11: make clean lock PYTHON=python3.11" >&2; exit 1; }
	@$(compile) --build-deps-for editable --output-file requirements.lock pyproject.toml
	@$(compile) --extra dev --constraint requirements.lock --output-file requirements-dev.lock pyproject.toml
	@$(compile) --output-file tests/clients/requirements.lock tests/clients/requirements.in

install: ## set up .venv, or bring it up to date
	@sh -c "$$ENVIRONMENT" install requirements.lock

install-dev: ## the same, with what tests and checks need
	@sh -c "$$ENVIRONMENT" install requirements-dev.lock

clean: ## remove .venv and every cache of the tools; never Penstock's data
	@rm -rf .venv tests/clients/.venv tests/clients/node_modules build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# .venv holds copies of the files that it was made from. While they equal the project's, nothing runs, pip least of
# all. A copied or moved .venv points back to where it was made, and one whose Python was replaced has lost its
# packages: both are made anew.
define ENVIRONMENT
set -eu
lock=$$1
log=.venv/install.log
fail() { echo "penstock: $$*" >&2; exit 1; }
same() { cmp -s "$$1" ".venv/$$1"; }
pip() { .venv/bin/python -m pip install --disable-pip-version-check --no-input "$$@" >>$$log 2>&1; }

usable() {
    case "$$(grep '^command = ' .venv/pyvenv.cfg 2>/dev/null)" in
        *" $$(pwd -P)/.venv") .venv/bin/python -c 'import pip' 2>/dev/null ;;
        *) return 1 ;;
    esac
}

find_python() {
    bare=
    for python in $$PYTHON; do
        "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        "$$python" -c 'import ensurepip, venv' 2>/dev/null && return
        bare=$$python
    done
    [ -z "$$bare" ] || fail "$$bare cannot make a virtual environment; on Debian: apt-get install python3-venv"
    fail "Python 3.11 or newer is needed, none was found ($$PYTHON); on Debian: apt-get install python3-venv"
}

if ! usable; then
    find_python
    echo "Setting up .venv (once) …"
    rm -rf .venv
    mkdir .venv
    "$$python" -m venv .venv >$$log 2>&1 || fail "$$python could not make .venv; its words are in $$log"
elif same "$$lock" && same pyproject.toml; then
    exit 0
else
    echo "Bringing .venv up to date …"
    : >$$log
fi
if ! same "$$lock"; then
    rm -f .venv/requirements*.lock
    pip --require-hashes -r "$$lock" || fail "$$lock could not be installed (no network?); pip's words are in $$log"
    for each in requirements.lock "$$lock"; do cp "$$each" .venv/; done
fi
if ! same pyproject.toml; then
    pip --no-deps --no-build-isolation -e . || fail "Penstock could not be installed; pip's words are in $$log"
    cp pyproject.toml .venv/
fi
endef
export ENVIRONMENT PYTHON
