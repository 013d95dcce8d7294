# Needs Python 3.10 or newer and make. Each target installs what it needs first.
PYTHON ?= python3
VENV ?= .venv

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help install demo tables-spirals tables-mci federated bench docs test test-slow lint sbom format clean

help:
	@echo "make demo     train the AD study on simulated MRI of many sites and print the results"
	@echo "make tables-spirals   Tables 1 and 2 on simulated spirals, 10 folds of every model, in runs/spirals"
	@echo "make tables-mci   Table 3, Figs. 3, 4 and S6 on a simulated MCI study, 10 folds of every model, in runs/mci"
	@echo "make federated   four simulated hospitals on the spirals: pooled, federated and alone, in runs/federated"
	@echo "make bench    cost of a training step of ARMED over the conventional network, and with many clusters"
	@echo "make docs     the docs site, in docs/_build/html/index.html"
	@echo "make test     style, types, safety and all tests but the slow ones"
	@echo "make test-slow   the slow ones: whole studies, tutorials, kills, several processes, the docs site"
	@echo "make install  make $(VENV) from constraints.txt, with all that demo and test need"
	@echo "make lint     style, types, and what bandit, picklescan and check-bundle find unsafe"
	@echo "make sbom     what the environment is made of, in sbom.json (CycloneDX)"
	@echo "make format   put the style right"
	@echo "make clean    remove $(VENV) and the tools' caches"

install: $(INSTALLED)

# An environment that an interrupted run left without pip is made anew.
$(INSTALLED): pyproject.toml constraints.txt
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing into $(VENV): about 2 GB, a few minutes"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	@touch $@

demo: $(INSTALLED)
	$(BIN)/python -m monai_armed demo

# SPIRALS=folder takes the points from its sim1.npz, sim2.npz and sim3.npz; VARIANT=paper trains the paper's network.
SPIRALS ?=
VARIANT ?=
tables-spirals: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m monai_armed spirals --bundle bundles/armed_spirals --processes 2 \
		--out runs/spirals$(VARIANT:%=_%) $(VARIANT:%=--variant %) $(SPIRALS:%=--set dataset_dir=%)

# MCI=ADNIMERGE.csv takes the real table.
MCI ?=
tables-mci: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m monai_armed mci --bundle bundles/armed_mci --processes 2 \
		--out runs/mci$(if $(MCI),_own --set dataset_dir=$(MCI))

# NVFLARE=1 runs each hospital as a process of its own, in NVFLARE's simulator.
NVFLARE ?=
federated: $(INSTALLED)
	$(if $(NVFLARE),$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[federated]")
	OMP_NUM_THREADS=1 $(BIN)/python -m monai_armed federated --bundle bundles/armed_spirals --hospitals 4 \
		--out runs/federated $(if $(NVFLARE),--nvflare)

bench: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/step_cost.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/clusters.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/many_clusters.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/nested_effects.py

docs: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -q -W --keep-going -b html -c docs . docs/_build/html
	@echo "docs/_build/html/index.html"

# One thread for each of the two test processes: PyTorch's own threads would fight over the cores.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --durations=5 -m "not slow"

test-slow: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --durations=5 -m slow

lint: $(INSTALLED)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/python -m bandit -q -c pyproject.toml -r monai_armed benchmarks
	$(BIN)/python -m picklescan -p bundles
	$(BIN)/python -m monai_armed check-bundle --ignore output --ignore data bundles/*

# Made by a tool in an environment of its own, so that it does not list itself.
sbom: $(INSTALLED)
	$(PYTHON) -m venv $(VENV)/sbom
	$(VENV)/sbom/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "cyclonedx-bom>=7"
	$(VENV)/sbom/bin/cyclonedx-py environment $(BIN)/python -o sbom.json
	@echo "sbom.json"

format: $(INSTALLED)
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
