# Everything runs in an environment of its own, made on first use:
#   .venv         the versions of constraints.txt, which were tested together
#   .venv-latest  the newest versions that pip finds
#   .venv-lowest  the lowest versions that pyproject.toml allows
PYTHON ?= python3
BIN := .venv/bin
PLUGINS := .venv/plugins
SUITE := -m pytest -m "not slow and not soak"
# Other versions warn of other things: there, a warning is an error only when our own code causes it.
UNTESTED := $(SUITE) -o 'filterwarnings=error:::(unetzoo|benchmarks|tests)\b' \
    -W error::pytest.PytestUnraisableExceptionWarning -W error::pytest.PytestUnhandledThreadExceptionWarning
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt --build-constraint constraints.txt

.PHONY: demo test test-latest test-lowest test-plugins test-slow soak lint types imports docs browser constraints clean

demo: .venv/.run
	$(BIN)/unetzoo train demo --out runs/demo-$$(date +%Y%m%d-%H%M%S)

test: .venv/.dev
	$(BIN)/python $(SUITE) -n 2 --dist worksteal --durations=25

test-latest: .venv-latest/.dev
	.venv-latest/bin/python $(UNTESTED) -n 2

test-lowest: .venv-lowest/.dev
	.venv-lowest/bin/python $(UNTESTED) -n 2

# Beside the environment, not in it: the other tests see unetzoo alone.
test-plugins: .venv/.dev
	rm -rf $(PLUGINS)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --target $(PLUGINS) ./plugins/unetzoo-*
	PYTHONPATH=$(PLUGINS) $(BIN)/python -m pytest plugins/*/tests -n 2

test-slow: .venv/.dev
	$(BIN)/python -m pytest -m slow

soak: .venv/.dev
	$(BIN)/python -m pytest -m soak --timeout 7200

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/typos

types: .venv/.dev
	$(BIN)/pyright --pythonpath $(BIN)/python

imports: .venv/.dev
	$(BIN)/lint-imports

docs: .venv/.docs
	$(BIN)/mkdocs build --strict

# The network and the runtime of the page "Try it"; needs npm. `make docs` then includes them.
browser: .venv/.dev
	$(BIN)/python -m docs.generate.browser

# Once the newest versions pass, they become the tested ones. The comment at the top of the file stays.
constraints: test-latest
	(grep '^#' constraints.txt; .venv-latest/bin/python -m pip list --format=freeze --exclude-editable --exclude pip) > .venv-latest/constraints.txt
	mv .venv-latest/constraints.txt constraints.txt

.venv/.python .venv-latest/.python .venv-lowest/.python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; name one: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --upgrade pip
	touch $@

.venv/.run: .venv/.python pyproject.toml constraints.txt
	$(INSTALL) -e .
	touch $@

.venv/.dev: .venv/.python pyproject.toml constraints.txt
	$(INSTALL) -e ".[dev]"
	touch $@ .venv/.run

.venv/.docs: .venv/.python pyproject.toml constraints.txt
	$(INSTALL) -e ".[docs]"
	touch $@ .venv/.run

.venv-latest/.dev: .venv-latest/.python pyproject.toml
	.venv-latest/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager -e ".[benchmarks,dev,docs]"
	touch $@

# Naming torchvision keeps it low as well; its newest release would bring a newer torch.
.venv-lowest/.dev: .venv-lowest/.python pyproject.toml
	.venv-lowest/bin/python -m pip install --quiet uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct \
	    -e ".[dev]" "torchvision>=0.25"
	touch $@

clean:
	rm -rf .venv .venv-latest .venv-lowest build dist site .pytest_cache .ruff_cache .import_linter_cache
