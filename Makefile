# make demo   the main job on real handwritten digits, in about a minute
# make test   unit, contract and fault tests; real-data checks too where SELFSUP_DATA is set
# make check  formatting, lint and types
# make bench  speed beside this machine's limit
PYTHON ?= python3
BIN := .venv/bin
# processes that test side by side
JOBS ?= 2
# the front door and what it gives out
SURFACE := $(addprefix selfsup/,__init__.py method.py encoder.py pretrain embed.py load.py run.py scan.py settings errors.py needs.py finetune predict.py compare.py search.py variants.py methods evaluate report)

.PHONY: demo test check format bench clean

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt "torch==2.13.0"
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev,video]"
	touch .venv/ready

demo: .venv/ready
	$(BIN)/selfsup demo

test: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

check: .venv/ready
	$(BIN)/ruff format --check selfsup tests benchmarks recipes
	$(BIN)/ruff check selfsup tests benchmarks recipes
	$(BIN)/mypy --follow-imports=silent $(SURFACE)

format: .venv/ready
	$(BIN)/ruff format selfsup tests benchmarks recipes
	$(BIN)/ruff check --fix selfsup tests benchmarks recipes

bench: .venv/ready
	$(BIN)/python -m benchmarks.throughput

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
