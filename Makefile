# What a newcomer types. Each target first makes or reuses the environment VENV, .venv unless said otherwise
# (see tools/setup_venv.sh): make test VENV=/big/disk/venv
.PHONY: setup demo test stress lint site bench
export VENV ?= .venv
PY := $(VENV)/bin/python

setup:
	@tools/setup_venv.sh

demo: setup           ## toy world -> pre-train -> convert -> fine-tune -> report, 12 minutes on 2 quiet cores; SEED=2: another world
	$(PY) tools/run_demo.py $(if $(SEED),--seed $(SEED) --output output/demo_$(SEED),--output output/demo)

test: setup           ## the test suite, without the long tests
	$(PY) -m pytest -m "not stress"

stress: setup         ## the long tests alone
	$(PY) -m pytest -m stress

lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) tools/check_documents.py

site:                 ## the documents as pages with search and the API, output/site/index.html; an environment of its own
	@test -x .venv-site/bin/mkdocs || python3 -m venv .venv-site
	@.venv-site/bin/python -m pip install --quiet --requirement docs/requirements-site.txt
	.venv-site/bin/python tools/build_site.py

bench: setup          ## how fast each part is, next to the published recipe; use no other program meanwhile
	$(PY) tools/benchmark_speed.py --output output/speed
