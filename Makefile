# Targets: setup fmt check test e2e bench docs run image. Everything a target needs, it sets up first.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.ready

.PHONY: setup fmt check test e2e bench docs run image

setup: $(STAMP)

$(STAMP): pyproject.toml requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $(STAMP)

fmt: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check
	$(BIN)/python bench/size.py

test: setup
	$(BIN)/python -m pytest -m "not e2e" -n 2 --cov --cov-report=term:skip-covered
	$(BIN)/python bench/size.py --ratio

e2e: setup
	tests/e2e/setup.sh
	$(BIN)/python -m pytest -m e2e tests/e2e

bench: setup
	$(BIN)/python -m bench.smoke

docs: setup
	$(BIN)/python docs/generate.py

run: setup
	@$(BIN)/otel-sidecar run --dev & pid=$$!; trap : INT TERM; \
	until $(BIN)/otel-sidecar health --ready > /dev/null 2>&1; do kill -0 $$pid 2> /dev/null || exit 1; sleep 0.1; done; \
	$(BIN)/otel-sidecar send; \
	while kill -0 $$pid 2> /dev/null; do wait $$pid; done

image:
	docker build --tag otel-sidecar:dev .
