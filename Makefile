# Two commands do all the set-up on a fresh machine: `make reproduce` and `make test`.
#   make reproduce [SEEDS="0 1 2 3 4"]   train, score, compare and draw the nano cells under runs/reproduce
#   make test | test-all | test-gpu      the tests; with the slow ones; those that need a CUDA device
#   make models | test-real              fetch a real language model (93 MB); the tests that need it
#   make test-exports                    exports, by their format's own validator (EXPORTS_PYTHON=python3.13 if python3
#                                        is older than 3.12)
#   make test-engines                    build llama.cpp's server (llama-cpp-python, minutes) and compare with it
#   make bench                           ratios of speed, side by side in one run
#   make lint                            ruff, the import contracts and the type checker
#   make audit                           look the pinned releases up among published weaknesses
#   make tables | check | retrain        rebuild tables and figures; prove derived files current; retrain one cell
#   make accept [STEPS="locks goldens"]  rewrite derived files after a deliberate change (scripts/accept.py)
#   make docs                            the documentation as a site in build/site, strictly checked, without network
#   make page [PAGE=DIR]                 the results as a page to click through, in build/page
#   make test-page                       the page in headless Chromium (installed from Debian's packages if missing)
#   make TORCH_INDEX=URL ...             take torch from this index (for example a CUDA or CPU build)
VENV  ?= .venv
PY    := $(VENV)/bin/python
SEEDS ?= 0
PAGE  ?= build/page
KEY   := $(shell (cat pyproject.toml constraints.txt; echo $(TORCH_INDEX)) | sha256sum | cut -c1-12)
STAMP := $(VENV)/.installed-$(KEY)
DEEPSPEED := $(VENV)/.deepspeed-$(KEY)
LLAMA := 0.3.36
ENGINES := build/engines/.installed-$(LLAMA)
EXPORTS := build/every-eval-ever
EXPORTS_PYTHON ?= python3
DOCS  := $(VENV)/.docs-$(KEY)
# one more than cores, because tests that start processes wait for them
WORKERS ?= $(shell python3 -c "import os; print(min(4, (os.cpu_count() or 1) + 1))")

# Every number at nano scale is made by one thread; malloc keeps its pages, which removes most page faults.
export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false
export MALLOC_MMAP_THRESHOLD_ ?= 1073741824
export MALLOC_TRIM_THRESHOLD_ ?= 4294967296

.PHONY: reproduce test test-all test-gpu models test-real test-exports test-engines bench lint audit tables check accept retrain docs page chromium test-page

reproduce: $(STAMP)
	$(PY) -m scripts.reproduce --seeds "$(SEEDS)"

test: $(STAMP)
	$(PY) -m pytest -m "not slow and not gpu and not real and not page and not engines" -n $(WORKERS) --dist worksteal

test-all: $(DEEPSPEED)
	$(PY) -m pytest -m "not gpu and not real and not page and not engines"

test-gpu: $(STAMP)
	$(PY) -m pytest -m gpu -rs

models: $(STAMP)
	$(PY) -m repro.checkpoint fetch smollm2

test-real: models
	$(PY) -m pytest -m real -rs

# an environment of its own: this package wants an older huggingface_hub and rich than constraints.txt has
test-exports: $(STAMP)
	@$(EXPORTS_PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 12))' || \
	  { echo "every-eval-ever needs Python 3.12 or later: make EXPORTS_PYTHON=python3.13 test-exports"; exit 2; }
	test -x $(EXPORTS)/bin/every_eval_ever || $(EXPORTS_PYTHON) -m venv --clear $(EXPORTS)
	test -x $(EXPORTS)/bin/every_eval_ever || $(EXPORTS)/bin/pip install -q --disable-pip-version-check every-eval-ever==0.3.0
	EVERY_EVAL_EVER=$(EXPORTS)/bin/every_eval_ever $(PY) -m pytest -n0 -rs tests/results/test_every_eval_ever.py

test-engines: models $(ENGINES)
	$(PY) -m pytest -n0 -rs tests/evals/engines/test_llama_cpp.py

bench: $(STAMP)
	$(PY) -m benchmarks

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports --no-logo
	$(VENV)/bin/ty check repro paper_figures benchmarks scripts

audit: $(STAMP)
	$(PY) -m scripts.audit

tables: $(STAMP)
	$(PY) -m repro.report && $(PY) -m paper_figures

check: $(STAMP)
	$(PY) -m repro.results check
	$(PY) -m repro.report --check
	$(PY) -m paper_figures --check
	$(PY) -m scripts.gpu_docs --check
	$(PY) -m scripts.rooms --check
	$(PY) -m scripts.gallery --check
	$(PY) -m scripts.items --check

accept: $(STAMP)
	$(PY) -m scripts.accept $(STEPS)

docs: $(DOCS)
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --quiet

page: $(STAMP)
	$(PY) -m repro.results page --out $(PAGE)

chromium:
	command -v chromium || command -v google-chrome || (apt-get update && apt-get install -y --no-install-recommends chromium)

test-page: $(STAMP) chromium
	$(PY) -m pytest -m page -rs

# always anew: a finished run would answer for code that has changed since
retrain: $(STAMP)
	rm -rf runs/ci
	$(PY) -m scripts.reproduce --only mdlm@nano --out runs/ci

$(STAMP): pyproject.toml constraints.txt
	test -x $(PY) || python3 -m venv $(VENV)
	$(if $(TORCH_INDEX),$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt --index-url $(TORCH_INDEX) torch)
	$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	rm -f $(VENV)/.installed-*; touch $@

$(DEEPSPEED): $(STAMP)
	$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[deepspeed]'
	rm -f $(VENV)/.deepspeed-*; touch $@

# an environment of its own: no test of this suite may depend on it
$(ENGINES):
	python3 -m venv build/engines
	echo 'set(LLAMA_BUILD_COMMON OFF)' > build/engines/library.cmake  # what llama.cpp's own programs share, half the time
	CMAKE_ARGS="-DLLAVA_BUILD=OFF -DCMAKE_PROJECT_INCLUDE=$(CURDIR)/build/engines/library.cmake" \
	  build/engines/bin/pip install -q --disable-pip-version-check 'llama-cpp-python[server]==$(LLAMA)'
	touch $@

$(DOCS): $(STAMP)
	$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[docs]'
	rm -f $(VENV)/.docs-*; touch $@
