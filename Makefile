# Everything a contributor runs. `make help` lists it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# What an installed tree was built from: a change to any of these rebuilds it.
SOURCES := pyproject.toml setup.py $(wildcard csrc/*.c csrc/*.h src/fastlstm/_core/*.pyx src/fastlstm/_core/*.pxd)
# What runs once more on the path that works everywhere: plain C, and SciPy's BLAS.
BLAS_TESTS := $(patsubst %,tests/test_%.py,attention core flush fork lstm lstm_laws lstm_oracle lstm_gradients stack \
              stream stream_use threads variants variants_gradients variants_oracle)
# What runs once more on the narrower of two sets of packed kernels.
AVX2_TESTS := $(patsubst %,tests/test_%.py,attention core flush lstm lstm_oracle lstm_gradients stack weights \
              variants variants_gradients variants_oracle)
# Tests run in some processes at once.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal
BASE ?= HEAD~1
HEAD ?= HEAD
RANGE ?= HEAD~5..HEAD

.PHONY: help demo test fuzz test-oracles test-c test-build lint docs sanitize mutants quality bench peers \
        dashboard regressions ci-tools hooks clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'

$(VENV)/.installed: $(BIN)/python $(SOURCES)
	$(BIN)/python -m pip install --quiet -e '.[plot,translate,speech,forecast]'
	@touch $@

$(VENV)/.test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group test
	@touch $@

$(VENV)/.oracles: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --group oracles
	@touch $@

$(VENV)/.quality: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -e '.[tasks,speech,forecast,translate]' --group quality
	@touch $@

$(VENV)/.lint: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group lint
	@touch $@

$(VENV)/.bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group bench
	$(BIN)/asv machine --config benchmarks/asv.conf.json --yes
	@touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group docs
	@touch $@

demo: $(VENV)/.installed  ## learn Python's own manual and write some of it (about two minutes)
	@mkdir -p demo
	$(BIN)/fastlstm lm train --out demo/topics.safetensors $(if $(wildcard demo/*.checkpoint),--resume)
	$(BIN)/python -m benchmarks.quality.topics --model demo/topics.safetensors
	$(BIN)/fastlstm lm generate demo/topics.safetensors --prompt 'The "while" statement' --seed 1

test: $(VENV)/.test test-c  ## run the tests; needs no other framework
	$(PYTEST)
	FASTLSTM_ISA=generic $(PYTEST) $(BLAS_TESTS)
	@if $(BIN)/python -c 'import sys; from fastlstm import _core; sys.exit(_core.ISA != "avx512")'; then \
	    echo FASTLSTM_ISA=avx2 $(PYTEST) $(AVX2_TESTS); \
	    FASTLSTM_ISA=avx2 $(PYTEST) $(AVX2_TESTS); \
	fi

test-c:  ## run the C kernels' own driver
	$(MAKE) -C tests/csrc check

test-oracles: $(VENV)/.oracles  ## run the tests that compare with live packages (torch, keras, onnxruntime, nltk)
	$(PYTEST) -m oracle

lint: $(VENV)/.lint  ## ruff, cython-lint and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(abspath $(BIN)):$$PATH" cython-lint src/fastlstm
	$(BIN)/mypy

docs: $(VENV)/.docs  ## build the documentation into build/docs; a warning is an error
	$(BIN)/python -m sphinx --fresh-env --fail-on-warning --keep-going --quiet docs build/docs
	@echo build/docs/index.html

sanitize:  ## the C driver under ASAN + UBSAN, TSAN, valgrind, and for aarch64 under qemu
	$(MAKE) -C tests/csrc -j2 --output-sync=target sanitize races valgrind neon

test-build: $(VENV)/.installed  ## build in every way (sdist, wheel, editable, debug, no OpenMP) and try each
	$(BIN)/python -m tests.build_matrix

mutants: $(VENV)/.test  ## break the core in many ways, one at a time: each must turn a test red
	$(BIN)/python -m tests.mutations

fuzz: $(VENV)/.oracles  ## feed every loader 100,000 changed files (two hours); COUNT, SEED, LOADER
	$(BIN)/python -m tests.fuzz $(or $(LOADER),all) --count $(or $(COUNT),100000) --seed $(or $(SEED),0)

$(VENV)/.peers: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -e '.[peers]'
	@touch $@

peers: $(VENV)/.peers  ## measure beside torch, ONNX Runtime, OpenVINO, JAX and NumPy (half an hour)
	@mkdir -p build/peers
	for mode in infer train step; do for threads in 1 2; do \
	    $(BIN)/python -m benchmarks.peers --mode $$mode --threads $$threads \
	        --json build/peers/$$mode-$$threads.json || exit 1; done; done
	$(BIN)/python -m benchmarks.peers --mode memory --json build/peers/memory.json
	$(BIN)/python -m benchmarks.chart build/peers/*-?.json --out build/peers/ratios.png

quality: $(VENV)/.quality  ## all tasks on real data that lack a run (hours; FASTLSTM_DATA, TASK=all); see docs/quality.md
	$(BIN)/python -m benchmarks.quality $(or $(TASK),all)

bench: $(VENV)/.bench  ## run the asv suite on the current commit
	$(BIN)/asv run --config benchmarks/asv.conf.json --show-stderr 'HEAD^!'

# asv's status 2: some benchmark failed on some commit, and its graph has a gap there.
dashboard: $(VENV)/.bench  ## run asv over RANGE (HEAD~5..HEAD), or STEPS of it; pages in .asv/html
	$(BIN)/asv run --config benchmarks/asv.conf.json -a rounds=1 --skip-existing-commits \
	    $(if $(STEPS),--steps $(STEPS)) '$(RANGE)' || [ $$? -eq 2 ]
	$(BIN)/python -m benchmarks.dashboard

regressions: $(VENV)/.bench  ## compare BASE (HEAD~1) with HEAD; fails past a ratio and a time
	$(BIN)/python benchmarks/regressions.py $(BASE) $(HEAD)

ci-tools:  ## system packages that CI wants (Debian): valgrind, a cross compiler, qemu
	apt-get update -qq
	apt-get install -y -qq --no-install-recommends valgrind gcc-aarch64-linux-gnu \
	    libc6-dev-arm64-cross qemu-user

hooks: $(VENV)/.lint  ## install the pre-commit hooks
	$(BIN)/pre-commit install

clean:  ## remove what was built (not the virtual environment)
	rm -rf build dist src/fastlstm/_core/*.so src/*.egg-info $(VENV)/.installed
	$(MAKE) -C tests/csrc clean
