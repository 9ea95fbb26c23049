# `make demo` and `make test` are the two commands; both install on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# How many processes `make test` runs side by side.
TEST_PROCESSES ?= 2
PIP := $(BIN)/pip --disable-pip-version-check --quiet

.PHONY: demo test check install format clean

install: $(STAMP)

# torch goes first and alone, so that no other requirement chooses another build of it.
$(STAMP): pyproject.toml client_sdk/python/pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Bedside needs Python 3.11 or newer; set PYTHON=/path/to/python3.11 and remove $(VENV)" >&2; exit 1; }
	@echo "Installing Bedside into $(VENV) (once; a few minutes on a slow line)"
	$(PIP) install 'pip>=25.1'
	$(PIP) install torch==2.13.0
	$(PIP) install -e './client_sdk/python[onnx-gpu,federated]' -e '.[examples]' --group dev
	@touch $@

demo: $(STAMP)
	$(BIN)/bedside demo

# A file's tests stay in one process, with the servers that they share.
test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .bedside
