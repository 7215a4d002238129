# Everything runs in its own environment, .venv; it is made on first use.
PYTHON ?= python3
BIN := .venv/bin
PLUGINS := .venv/plugins

.PHONY: demo test test-plugins test-slow soak lint types imports docs clean

demo: .venv/.run
	$(BIN)/unetzoo train demo --out runs/demo-$$(date +%Y%m%d-%H%M%S)

test: .venv/.dev
	$(BIN)/python -m pytest -m "not slow and not soak" -n 2

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

.venv/.python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; name one: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

.venv/.run: .venv/.python pyproject.toml
	$(BIN)/python -m pip install --quiet -e .
	touch $@

.venv/.dev: .venv/.python pyproject.toml
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $@ .venv/.run

.venv/.docs: .venv/.python pyproject.toml
	$(BIN)/python -m pip install --quiet -e ".[docs]"
	touch $@ .venv/.run

clean:
	rm -rf .venv build dist site .pytest_cache .ruff_cache .import_linter_cache
