# SPDX-License-Identifier: MIT

KERNEL ?= 6.12
FLAVOUR ?= standard

help:
	@echo "make demo          the story, on real kernels in QEMU"
	@echo "make test          all lanes"
	@echo "make test-all      all lanes on all kernels and flavours: hours"
	@echo "make test-unit     Python, no root, no kernel"
	@echo "make test-shim     the C shim under ASan and UBSan"
	@echo "make test-public   the wheel, as users get it"
	@echo "make test-deb      the Debian packages, in clean roots of Debian 12 and 13"
	@echo "make test-vm       on a real kernel: KERNEL=6.1 FLAVOUR=rt"
	@echo "make lint          ruff, mypy; layers, checkpatch, W=1 and sparse for the kernel module"
	@echo "make debug-kernel  a kernel that finds faults, from source: KERNEL=6.12 VARIANT=rt"
	@echo "make harden        klpctl on it: everything at once, faults, random requests, all tests"
	@echo "make mutants       faults put into klpctl: the tests must see them"
	@echo "make docs          into build/docs"
	@echo "make man           into build/man"
	@echo "make wheel         into dist/"
	@echo "make wheels        as PyPI takes them, into dist/"
	@echo "make test-wheel    that, in a clean root of Debian 12 without a compiler, and klpctl by DKMS"
	@echo "make deb           Debian packages, into dist/"
	@echo "make clean         everything that was built"

demo: setup
	scripts/demo

test: setup
	scripts/test

test-unit test-shim test-public test-deb: test-%: setup
	scripts/test $*

test-all: setup
	scripts/test all

test-vm: setup
	scripts/test vm:$(KERNEL):$(FLAVOUR)

lint docs: setup
	scripts/test $@

debug-kernel: setup
	.venv/bin/python scripts/debug-kernel.py $(KERNEL) $(VARIANT)

harden: setup
	.venv/bin/python scripts/harden --kernel $(KERNEL) --variant "$(VARIANT)"

mutants: setup
	.venv/bin/python scripts/mutants --at-least 26

man: setup
	.venv/bin/python scripts/man build/man

wheel: setup
	.venv/bin/python -m build --outdir dist

wheels: setup
	scripts/wheels

test-wheel: setup
	scripts/test-wheel

deb: man
	scripts/deb

setup:
	@scripts/setup

clean:
	rm -rf build dist .venv .mypy_cache .ruff_cache .pytest_cache pylivepatch.egg-info
	rm -f pylivepatch/_shim*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help demo test test-all test-unit test-shim test-public test-deb test-vm lint docs debug-kernel harden mutants man wheel deb setup clean
