# `make` alone lists the targets. Real-data tests read ../shared/data, or the folder MEDPIPE_TEST_DATA names.
python := .venv/bin/python

.PHONY: help setup demo test faults bench lint package clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

setup: ## .venv with medpipe and its pinned packages; reuses what is there
	@sh .ci/setup

demo: setup ## two nights of a simulated hospital, end to end, on this machine
	@.venv/bin/medpipe demo

test: setup ## the tests (about 20 minutes on 2 cores)
	@$(python) -m pytest

faults: setup ## the long fault runs (up to 60 minutes)
	@$(python) -m pytest -m faults

bench: setup ## the benchmarks there are, and how to run one
	@grep -l __main__ tests/bench/*.py | sed 's|/|.|g; s|\.py$$||; s|^|$(python) -m |'

lint: setup ## style and formatting
	@.venv/bin/ruff check . && .venv/bin/ruff format --check .

package: setup ## dist/medpipe-*.whl, and dist/medpipe.zip for spark-submit --py-files
	@.venv/bin/uv build --quiet --wheel --out-dir dist .
	@.venv/bin/medpipe zip dist/medpipe.zip
	@ls -l dist

clean: ## removes what the targets above made, .venv included
	rm -rf .venv build dist demo medpipe.egg-info spark-warehouse metastore_db derby.log
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
