# Every target makes the virtual environment that it needs, from python3 alone. An
# empty file inside the environment, named after an extra, says that it is installed.

PYTHON = python3
VENV = .venv
CONSTRAINTS =
AGAINST =

# The first of these that works: a name on the PATH can be a shim with nothing behind.
OLDEST_PYTHON = $(shell for name in python3.10 python3.11 python3.12 python3; do \
	$$name -c "import ensurepip" 2>/dev/null && echo $$name && break; done)

.PHONY: demo manual pictures test check test-torch test-oldest environments
.PHONY: bench soak fuzz clean

# The targets share an environment, and pip needs it to itself.
.NOTPARALLEL:

# Tests start hundreds of processes, each of which would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

demo: $(VENV)/.examples
	$(VENV)/bin/python examples/demo.py

# Those in README.md; the one of the page needs Chromium.
pictures: $(VENV)/.examples
	$(VENV)/bin/python docs/pictures/make.py

# What --help prints, as a page.
manual: $(VENV)/.examples
	$(VENV)/bin/python -m elementsckpt.cli.manual > docs/cli.md

test: $(VENV)/.test
	$(VENV)/bin/python -m pytest -n logical --maxprocesses 4 -m "not environments"

check: $(VENV)/.dev
	$(VENV)/bin/python -m ruff format --check
	$(VENV)/bin/python -m ruff check
	$(VENV)/bin/python -m mypy
	$(VENV)/bin/python -m pytest --quiet \
		tests/project/test_layering.py tests/project/test_types.py

# The tests that need torch, or what is built on it, which no other environment has.
test-torch:
	@$(MAKE) --no-print-directory .venv-torch/.test-torch \
		VENV=.venv-torch CONSTRAINTS=.ci/torch.txt
	.venv-torch/bin/python -m pytest -m torch -n logical --maxprocesses 4

test-oldest:
	@$(MAKE) --no-print-directory test PYTHON=$(OLDEST_PYTHON) \
		VENV=.venv-oldest CONSTRAINTS=.ci/oldest.txt

# The environments of docs/environments.md, each saved 60 times, in their simulators.
environments:
	@$(MAKE) --no-print-directory .venv-environments/.test-environments \
		VENV=.venv-environments CONSTRAINTS=.ci/environments.txt
	.venv-environments/bin/python -m pytest -m environments -n logical --maxprocesses 4

# With AGAINST=main, it says what became slower, and rewrites nothing.
bench: $(VENV)/.bench
	$(VENV)/bin/python -m benchmarks $(if $(AGAINST),--against $(AGAINST),--write)

soak: $(VENV)/.soak
	$(VENV)/bin/python -m pytest --every-call -n logical tests/promises/test_faults.py
	$(VENV)/bin/python -m pytest --slow -m slow
	PYTHONPATH=tests $(VENV)/bin/python -m soak

fuzz: $(VENV)/.soak
	$(VENV)/bin/python tests/fuzz.py

clean:
	rm -rf .venv .venv-torch .venv-oldest .venv-environments build dist *.egg-info
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# The version is in __init__.py, and the installed metadata must follow it.
$(VENV)/.%: setup.cfg pyproject.toml elementsckpt/__init__.py $(CONSTRAINTS) | $(VENV)/.made
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		$(addprefix --constraint ,$(CONSTRAINTS)) --editable '.[$*]'
	@touch $@

$(VENV)/.made:
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@
