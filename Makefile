# The commands of this project; the logic is in scripts/.
# ARGS goes to the program behind a target: make test ARGS=prune

PY := $(CURDIR)/target/test-venv/bin/python
TARGET := $(or $(CARGO_TARGET_DIR),target)

.DEFAULT_GOAL := help
.PHONY: help demo test lint doc deny bench clean install

help: ## list the targets
	@awk -F ': ## ' '/^[a-z]+: ## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

demo: ## back up a sample system, burn it down, restore it, compare every byte
	@sh scripts/bootstrap.sh demo
	cargo build --release --locked
	$(TARGET)/release/offsite demo $(ARGS)

test: ## install what the tests need, then run all of them
	@sh scripts/bootstrap.sh test
	$(PY) -B -m unittest discover -q -s tests/github_stand_in
	$(PY) -B -m unittest discover -q -s benches
	OFFSITE_TEST_PYTHON=$(PY) cargo test --locked --no-fail-fast $(ARGS)

lint: ## formatting and clippy, warnings denied
	cargo fmt --all --check
	cargo clippy --all-targets --locked -- -D warnings

doc: ## build the documentation, warnings denied
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked

deny: ## check the dependencies' licences and sources
	@sh scripts/deny.sh

bench: ## measure offsite beside its peers; ARGS="S M --runs 3" for less
	@sh scripts/bootstrap.sh test
	cargo build --release --locked
	@sh scripts/bench-peers.sh
	$(PY) -B benches/bench.py $(ARGS)

clean: ## remove everything that was built
	cargo clean

install: ## install offsite for the current user
	cargo install --path . --locked
