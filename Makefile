# make demo        export a real vision transformer with token merging, run it on a photograph, profile it   (no torch)
# make test        the tests, PyTorch included: about 20 minutes on two cores
# make test-full   the same, more model families, then lint, types, the wheel, other Pythons: about an hour; says what it skipped
# make clean       remove what the above built
#
# Needed: Python 3.11 or newer with pip; `make test PYTHON=python3.12` picks another than python3.

PYTHON  ?= python3
WORKERS ?= 2                     # test processes, each with one thread

DEMO := .venv/bin
TEST := .venv-test/bin
PIP  := -m pip --disable-pip-version-check install

.PHONY: demo test test-full more lint types wheel interpreters clean
.NOTPARALLEL:

demo: .venv/ready
	rm -rf .demo
	$(DEMO)/edgetok export zoo:dinov2-style-s14 --reduce tome:r=16 -o .demo/small
	$(DEMO)/edgetok run .demo/small --input "$$($(DEMO)/python .ci/photograph.py)"
	$(DEMO)/edgetok profile .demo/small --against zoo:dinov2-style-s14 --input "$$($(DEMO)/python .ci/photograph.py)" \
	  -o .demo/report

test: .venv-test/ready
	OMP_NUM_THREADS=1 $(TEST)/python -m pytest -n $(WORKERS)

test-full:
	$(PYTHON) .ci/full.py test more lint types wheel interpreters

more: .venv-test/ready
	OMP_NUM_THREADS=1 $(TEST)/python -m pytest -n $(WORKERS) -m more

lint: .venv-test/ready
	$(TEST)/ruff check

# mypy does not follow the mapping of exporters/ to edgetok.exporters: it reads an installed copy, and what imports it beside it.
types: .venv-test/ready
	rm -rf .types
	$(TEST)/python $(PIP) --quiet --no-deps --no-build-isolation --target .types .
	ln -s ../benchmarks ../tests .types
	cd .types && ../$(TEST)/mypy --config-file ../pyproject.toml --cache-dir ../.mypy_cache -p edgetok -p benchmarks

wheel: .venv-test/ready
	$(TEST)/python -m pytest -m full

interpreters: .venv-test/ready
	$(TEST)/python .ci/interpreters.py

# No torch here. A folder counts as built once the file `ready` is in it, so an interrupted build is taken up again.
.venv/ready: pyproject.toml
	$(call venv,.venv)
	$(DEMO)/python $(PIP) -e '.[cpu]'
	$(DEMO)/python $(PIP) --no-deps --group demo
	touch $@

.venv-test/ready: pyproject.toml
	$(call venv,.venv-test)
	$(TEST)/python $(PIP) -e '.[cpu,export]' --group test
	$(TEST)/python $(PIP) --no-deps --group test-data
	touch $@

# pip reads dependency groups since 25.1; Python 3.11 and 3.12 bring an older one.
define venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed, and $(PYTHON) is {sys.version.split()[0]}: make PYTHON=...")'
	$(PYTHON) -m venv $1
	$1/bin/python $(PIP) --quiet 'pip>=25.1'
endef

clean:
	rm -rf .venv .venv-test .venv-py* .types .demo .portable dist
