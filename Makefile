# make demo    install and run the whole path on real images, without a download of data
# make test    install, then lint, types and tests (CIFAR10_ROOT=... adds the tests on the real CIFAR-10)
# make slow    the tests that take longer
# make cluster  the tests on a real SLURM, Ray cluster and the like, which are started here (their packages: as root)
# make bench   the comparison of speed that stands in the README
# make gpu     what an NVIDIA GPU has to show: tests, comparisons, recipes over many seeds; into outputs/gpu
PYTHON ?= python3
BIN := .venv/bin
FAST := device.compile=true device.graph=true
# speedrun94 as published
AIRBENCH94 := epochs=8 data.size_schedule=null

.PHONY: demo test lint slow cluster bench gpu install constraints clean

demo: install
	$(BIN)/cifar run experiment=demo

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not slow and not gpu and not cluster"

slow: install
	$(BIN)/python -m pytest -m "slow and not gpu and not cluster"

CLUSTER := cluster

cluster: install
	sh tests/cluster_packages.sh
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile -m "$(CLUSTER)" -rs

bench: install
	$(BIN)/cifar bench --model resnet50 vgg16 --steps 10 --rounds 9

GPU_BENCH := $(BIN)/cifar bench --device cuda --model resnet18 resnet50 vgg16 speednet --steps 50

gpu: install
	mkdir -p outputs/gpu
	$(BIN)/python -m pytest -m gpu
	$(GPU_BENCH) --log outputs/gpu/bench.jsonl
	$(GPU_BENCH) --set $(FAST) --log outputs/gpu/bench_recorded.jsonl
	$(BIN)/cifar speedrun --device cuda --set $(FAST) $(AIRBENCH94) --recipes speedrun94 --seeds 100 --json outputs/gpu/speedrun94.json
	$(BIN)/cifar speedrun --device cuda --set $(FAST) --recipes speedrun96 --seeds 10 --json outputs/gpu/speedrun96.json

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
