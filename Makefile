# SPDX-License-Identifier: Apache-2.0
# make install   what running needs: .venv with helio in it
# make test      lint and all tests (as root; also: make lint, make unit, make system ...)
# make demo      port mirroring live, in network namespaces of its own
# make demo-rspan   a port mirrored into a VLAN and seen on another bridge
# make demo-erspan  a port mirrored to another host through GRE, ERSPAN II and ERSPAN III
# make demo-flows   flow tables that rewrite frames, and mirrors before and behind them
# make bench     Heliograph beside the Linux bridge and Open vSwitch
# make soak      many random cases against the model of the rules (CASES=100000 SEED=...)
# make bpf       compile the data plane anew (installing never compiles)

PYTHON ?= python3
export PYTHON
python := .venv/bin/python
bpf_sources := $(wildcard bpf/*.[ch])

.PHONY: install packages test-packages dev lint test unit packet system soak bpf demo demo-rspan demo-erspan demo-flows bench clean
.DEFAULT_GOAL := install
.NOTPARALLEL:

install: packages .venv/.installed
	@echo "installed: .venv/bin/helio"

packages:
	@tools/need_packages libbpf1

.venv/.installed: pyproject.toml tools/make_venv
	@tools/make_venv .
	@touch $@

dev: install test-packages .venv/.installed-dev .cache/ovs/.unpacked .cache/os-ken/.installed

test-packages:
	@tools/need_packages iproute2 util-linux iputils-ping tcpdump ethtool iperf3 tshark

.venv/.installed-dev: .venv/.installed
	@tools/make_venv '.[dev]'
	@touch $@

.cache/ovs/.unpacked: tools/unpack_ovs tools/need_packages
	@tools/unpack_ovs

.cache/os-ken/.installed: tools/make_os_ken | .venv/.installed
	@tools/make_os_ken

lint: dev
	@$(python) -m ruff check --quiet .
	@$(python) -m ruff format --quiet --check .
	@$(python) -m mypy --no-error-summary
	@$(if $(bpf_sources),.venv/bin/clang-format --dry-run --Werror $(bpf_sources))

test: lint unit packet system

# System tests mostly wait: five at once take a third of the time, on two processors too.
system: at_once = -n 5 --dist worksteal
unit packet: at_once = -n 2 --dist worksteal

unit packet system: dev
	@$(python) -m pytest -q $(at_once) tests/$@

soak: dev
	@CASES=$(CASES) SEED=$(SEED) $(python) -m tools.soak

bpf: dev
	@$(python) -m tools.build_bpf

demo demo-rspan demo-erspan: install
	@tools/need_packages iproute2 util-linux iputils-ping tcpdump $(if $(findstring erspan,$@),tshark)
	@$(python) -m tools.$(subst -,_,$@)

demo-flows: install .cache/ovs/.unpacked
	@tools/need_packages iproute2 util-linux tcpdump ethtool
	@$(python) -m tools.demo_flows

bench: dev
	@$(python) -m bench

clean:
	rm -rf .venv .cache build .mypy_cache .ruff_cache .pytest_cache .hypothesis src/*.egg-info
