# make demo    install and run the whole path on real images, without a download of data
# make test    install, then lint, types and tests (CIFAR10_ROOT=... adds the tests on the real CIFAR-10)
# make slow    the tests that take longer
# make bench   the comparison of speed that stands in the README
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint slow bench install constraints clean

demo: install
	$(BIN)/python run.py experiment=demo

test: lint
	$(BIN)/python -m pytest -m "not slow and not gpu"

slow: install
	$(BIN)/python -m pytest -m "slow and not gpu"

bench: install
	$(BIN)/python -m cifar.bench --model resnet50 vgg16 --steps 10 --rounds 7 --json outputs/bench.json

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert (3, 10) <= sys.version_info < (3, 14), "Python 3.10 to 3.13 is needed; name one with make PYTHON=python3.12"'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'
	touch $@

# Pins the newest versions that pyproject.toml's ranges allow, for every supported Python at once.
constraints: install
	$(BIN)/python -m pip install uv
	$(BIN)/uv pip compile --universal --upgrade --python-version 3.10 --extra dev --no-header --no-annotate pyproject.toml --output-file constraints.txt

clean:
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache
