# Targets: setup fmt check test e2e bench docs run image. Everything a target needs, it sets up first.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.ready
WALKER := collector/otlp/_plain.abi3.so collector/otlp/_json.abi3.so collector/otlp/_numbers.abi3.so collector/processors/llm_cost/_calls.abi3.so collector/_model.abi3.so

.PHONY: setup fmt check test e2e bench docs run image

setup: $(STAMP) $(WALKER)

$(STAMP): pyproject.toml requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $(STAMP)

# Optional: without a C compiler it says so and is not there afterwards.
$(WALKER) &: $(wildcard collector/*.c collector/otlp/*.[ch] collector/processors/*/*.c) hatch_build.py | $(STAMP)
	@$(BIN)/python hatch_build.py

fmt: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python hatch_build.py --check
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check
	$(BIN)/python bench/size.py

# What may use the walker, or the library's completion queue, is tested without them first, then everything with them.
test: setup
	OTEL_SIDECAR_WALKER=python OTEL_SIDECAR_GRPC=aio $(BIN)/python -m pytest -m "not e2e" -n 2 -rf tests/otlp tests/processors tests/receivers
	$(BIN)/python -m pytest -m "not e2e" -n 2 --cov --cov-report=term:skip-covered
	$(BIN)/python bench/size.py --ratio

e2e: setup
	tests/e2e/setup.sh
	$(BIN)/python -m pytest -m e2e tests/e2e

# Beside other collectors, about 15 minutes; with QUICK=1 about 3. `python -m bench.smoke` needs no other collector.
bench: setup
	bench/build_peers.sh
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement bench/requirements.txt
	$(BIN)/python -m bench $(if $(QUICK),--quick)

docs: setup
	$(BIN)/python docs/generate.py

run: setup
	@$(BIN)/otel-sidecar run --dev --sample

image:
	docker build --tag otel-sidecar:dev .
