# The commands of this repository. `make` alone lists them; each installs what it is missing.

.DEFAULT_GOAL := help
.PHONY: help demo build install uninstall test check fmt fuzz fuzz-api bench-failover bench-idle bench-checks bench-connections bench-faces bench-xdp bench-balance sim clean

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
# Where Debian keeps ip, nft and keepalived; not on every user's path.
# (A path that has them stays as it is: build scripts that look at it would run again.)
ifeq (,$(findstring /usr/sbin,$(PATH)))
export PATH := $(PATH):/usr/sbin:/sbin
endif

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 22

demo: ## three nodes, a VIP, every fault, before your eyes (DEMO="..." adds arguments)
	@scripts/install-deps demo
	$(CARGO) build --release --locked -p buoy-cli
	@$(TARGET)/release/buoy lab demo $(DEMO)

build: ## the program, as it is released
	@scripts/install-deps demo
	$(CARGO) build --release --locked -p buoy-cli

install: ## what `make build` has made and its unit, below /usr/local and /etc/systemd, as root (PREFIX, UNITS, DESTDIR); starts nothing
	@DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" UNITS="$(UNITS)" scripts/install add $(TARGET)/release/buoy

uninstall: ## stops it, takes all of it out of the kernel and removes both; keeps configuration and state, and says where they are
	@DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" UNITS="$(UNITS)" SOCKET="$(SOCKET)" scripts/install remove

test: ## format, lints, licences, house rules and every test; ends with the count
	@scripts/install-deps test
	@$(CARGO) run -q --locked -p buoy-xtask -- test

check: ## format, lints, licences, house rules
	@scripts/install-deps test
	@$(CARGO) run -q --locked -p buoy-xtask -- check

fmt: ## format all Rust code
	@$(CARGO) fmt --all

fuzz: ## more random input for the parsers and machines (CASES=100000 for longer)
	@scripts/install-deps test
	FUZZ_CASES=$(or $(CASES),20000) $(CARGO) nextest run -p buoy-wire -p buoy-config -E 'test(/any_|no_text/)'

fuzz-api: ## ask an agent whatever its OpenAPI description allows and forbids: a minute, with schemathesis from PyPI, as root
	$(CARGO) build --locked -p buoy-cli
	@scripts/fuzz-api $(TARGET)/debug/buoy

bench-failover: ## the same faults for Buoy and keepalived, in turns: 50 minutes (BENCH="--repeat 2 --minutes 1" for less)
	@scripts/install-deps demo
	$(CARGO) build --release --locked -p buoy-cli
	@$(TARGET)/release/buoy lab bench failover $(BENCH)

bench-idle: ## what 1000 VIPs cost that have nothing to do, and whether one moves: 10 minutes on a quiet machine
	@scripts/install-deps demo
	$(CARGO) build --release --locked -p buoy-cli
	@$(TARGET)/release/buoy lab bench idle $(BENCH)

bench-checks: ## what it costs to ask 10,000 backends every second, beside a bare loop: 2 minutes
	@scripts/install-deps demo
	$(CARGO) build --release --locked -p buoy-cli
	@$(TARGET)/release/buoy lab bench checks $(BENCH)

bench-connections: ## which of 2000 connections outlive their balancer, beside HAProxy, nftables and conntrackd: 3 minutes
	@scripts/install-deps demo
	$(CARGO) build --release --locked -p buoy-cli
	@$(TARGET)/release/buoy lab bench connections $(BENCH)

bench-faces: ## what API and page cost, and whether 200 who ask, or 300 harmful checks, delay a heartbeat: 6 minutes
	@scripts/install-deps demo
	$(CARGO) build --release --locked -p buoy-cli
	@$(TARGET)/release/buoy lab bench faces $(BENCH)

bench-xdp: ## what a packet costs on the fast path, beside simple programs and nftables: 6 minutes, as root
	@scripts/install-deps demo
	$(CARGO) build --release --locked -p buoy-cli
	@$(TARGET)/release/buoy lab bench xdp $(BENCH)

bench-balance: ## mode "proxy" beside HAProxy and nginx, mode "kernel" beside nftables by hand: 7 minutes
	@scripts/install-deps demo
	$(CARGO) build --release --locked -p buoy-cli
	@$(TARGET)/release/buoy lab bench balance $(BENCH)

sim: ## whole clusters in simulated hours, all faults, every promise checked (HOURS=100000)
	@scripts/install-deps demo
	$(CARGO) run --profile sim --locked -p buoy-sim --bin buoy-sim -- hours --hours $(or $(HOURS),1000)

clean: ## remove everything that was built
	@$(CARGO) clean
