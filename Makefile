# What one does with this project. `make help` lists it.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Tools that are built from source once are kept here.
CACHE ?= $(CURDIR)/.cache
DENY_VERSION := 0.20.2
CARGO_DEB_VERSION := 3.8.0
CARGO_SBOM_VERSION := 0.10.0
export PATH := $(CACHE)/tools/bin:$(PATH)

# How many tests run at a time: most of them wait more than they work.
TEST_THREADS ?= 4
# How long `make fuzz` stays with each target.
FUZZ_SECONDS ?= 60

.PHONY: help run test setup format clippy cargo-test documentation readme conformance deploy-checks systemd-boot release licences lint audit bench fuzz

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## start a node with the defaults (release build)
	cargo run --release --locked -- run

# One after the other: on a small machine side by side is slower, and the first failure should be the last word.
test: ## everything that must hold before a commit
	@$(MAKE) --no-print-directory setup
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory cargo-test
	@$(MAKE) --no-print-directory readme
	@$(MAKE) --no-print-directory conformance
	@$(MAKE) --no-print-directory deploy-checks

lint: format clippy documentation licences ## formatting, clippy, documentation and cargo-deny, without a warning

setup: ## install what the tests need and this machine lacks (apt, and a nats-server into the cache)
	CACHE=$(CACHE) tests/setup.sh

format:
	cargo fmt --check

clippy:
	cargo clippy --locked --all-targets --quiet -- -D warnings

documentation:
	RUSTDOCFLAGS=-Dwarnings cargo doc --locked --no-deps --quiet

cargo-test: ## unit tests and the tests against the binary
	RUST_TEST_THREADS=$(TEST_THREADS) cargo test --locked --no-fail-fast
	cargo test --locked --quiet --manifest-path benches/loadgen/Cargo.toml

readme: ## the shell lines of the README, against a node
	cargo build --locked --quiet
	tests/readme.sh target/debug/sidewire

conformance: ## the WebSocket conformance cases against `sidewire echo`
	cargo build --locked --quiet
	tests/autobahn/run.sh target/debug/sidewire

deploy-checks: ## units, chart, dashboards and proxy configurations, by the real tools
	tests/setup.sh --deploy
	tests/deploy/tools.sh $(CACHE)/tools
	$(MAKE) --no-print-directory $(CACHE)/tools/bin/cargo-deb
	cargo build --locked --quiet
	tests/deploy/units.sh target/debug/sidewire
	$(CACHE)/tools/python/bin/python tests/deploy/helm.py helm kube-score target/debug/sidewire
	$(CACHE)/tools/python/bin/python tests/deploy/prometheus.py target/debug/sidewire
	python3 tests/deploy/proxies.py target/debug/sidewire
	tests/deploy/package.sh target/debug/sidewire
	python3 tests/deploy/image.py target/debug/sidewire
	$(CACHE)/tools/python/bin/hadolint Dockerfile

systemd-boot: ## the units in a real systemd, booted in namespaces (root, cgroup 2)
	cargo build --locked --quiet
	tests/deploy/boot.sh target/debug/sidewire

licences: $(CACHE)/tools/bin/cargo-deny ## licences, duplicate crates and where crates come from
	cargo deny --locked check licenses bans sources

audit: $(CACHE)/tools/bin/cargo-deny ## known faults of the crates in use (asks the RustSec database)
	cargo deny --locked check advisories

$(CACHE)/tools/bin/cargo-deny:
	cargo install --locked --version $(DENY_VERSION) --root $(CACHE)/tools --target-dir $(CACHE)/tools/target cargo-deny
	rm -rf $(CACHE)/tools/target

$(CACHE)/tools/bin/cargo-deb:
	cargo install --locked --version $(CARGO_DEB_VERSION) --root $(CACHE)/tools --target-dir $(CACHE)/tools/target cargo-deb
	rm -rf $(CACHE)/tools/target

$(CACHE)/tools/bin/cargo-sbom:
	cargo install --locked --version $(CARGO_SBOM_VERSION) --root $(CACHE)/tools --target-dir $(CACHE)/tools/target cargo-sbom
	rm -rf $(CACHE)/tools/target

release: $(CACHE)/tools/bin/cargo-deb $(CACHE)/tools/bin/cargo-sbom ## archive with a static binary, Debian package, SBOM and checksums, below target/dist
	tests/deploy/tools.sh $(CACHE)/tools
	packaging/release.sh
	$(CACHE)/tools/python/bin/python tests/deploy/release.py target/dist

bench: ## measure beside the floor and nginx + Nchan; QUICK=1 for a short version
	CACHE=$(CACHE) tests/setup.sh --bench
	cargo build --release --locked
	cargo build --release --locked --features bare-hyper --manifest-path benches/loadgen/Cargo.toml
	python3 benches/compare/run.py $(if $(QUICK),--quick) $(BENCH)
	$(if $(BENCH),,cargo bench --locked --bench bus)

fuzz: ## feed every parser with noise for FUZZ_SECONDS each
	cd fuzz && for target in $$(cargo +nightly fuzz list); do \
		cargo +nightly fuzz run --release "$$target" -- -seed_inputs="$$(ls -d seeds/$$target/* | paste -sd,)" -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=512; \
	done
