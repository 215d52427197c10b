# Two commands do everything on a fresh machine with Python >= 3.11: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test lint bench lock clean

demo: $(STAMP)
	$(BIN)/async-optax demo --output results/demo

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	for name in engine lanes sweep scaling compile pipeline gossip transforms timelines distributed; do \
	  $(BIN)/python benchmarks/$$name.py --output benchmarks/results || exit 1; done

# Versions are locked for both commands; remove .venv to start afresh.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "async_optax needs Python >= 3.11: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $(STAMP)

# For maintainers: brings the locked versions up to date.
lock: $(STAMP)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 \
	  --extra experiments --extra dev --no-emit-index-url --no-emit-find-links \
	  --output-file requirements.lock --upgrade --quiet --custom-compile-command "make lock"

clean:
	rm -rf .venv results
