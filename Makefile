.DEFAULT_GOAL := help
VENV := $(or $(ROLLBACKD_VENV),.venv)
PREFIX := /usr
.PHONY: help build install demo test bench reliability fuzz deny fmt lint bench-detection

help: ## Show this
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

build: ## Build the release binary, target/release/rollbackd
	cargo build --release --locked

install: build ## Install binary, man pages, completions and systemd unit; DESTDIR, PREFIX=/usr
	install -Dm755 target/release/rollbackd $(DESTDIR)$(PREFIX)/bin/rollbackd
	install -d $(DESTDIR)$(PREFIX)/share/man/man1
	target/release/rollbackd man --out $(DESTDIR)$(PREFIX)/share/man/man1
	for shell in bash:bash-completion/completions/rollbackd zsh:zsh/site-functions/_rollbackd \
	  fish:fish/vendor_completions.d/rollbackd.fish; do \
	  file=$(DESTDIR)$(PREFIX)/share/$${shell#*:}; install -d $${file%/*}; \
	  target/release/rollbackd completions $${shell%%:*} >$$file || exit 1; \
	done
	install -Dm644 packaging/systemd/rollbackd.service \
	  $(DESTDIR)$(PREFIX)/lib/systemd/system/rollbackd.service

demo: ## Watch a bad version being rolled back; HEALTHY=1 for a good one being promoted
	@HEALTHY=$(HEALTHY) demo/run

test: ## Format, lints, docs, and every test, the end-to-end ones included
	@scripts/test

bench: ## Measure speed and memory: the table in the README
	@scripts/setup packages
	cargo bench --locked --bench figures

bench-detection: ## Compare detection with others': the tables in docs/detection.md
	cargo bench --locked --bench detection

reliability: ## Break what can break, many times: the table in RELIABILITY.md
	@scripts/setup packages
	@scripts/reliability

fuzz: ## Give every reader of foreign bytes ten million inputs, guided by coverage
	@scripts/fuzz

deny: ## Check the crates: licences, bans, sources and advisories
	@scripts/deny

fmt: ## Format Rust and Python
	cargo fmt
	@scripts/setup venv $(VENV) dev
	$(VENV)/bin/ruff format --config integrations/openrtc/pyproject.toml integrations/openrtc demo/*.py demo/start-worker

lint: ## Lints and types, Rust and Python
	cargo clippy --all-targets --locked -- -D warnings
	@scripts/setup venv $(VENV) dev
	@ROLLBACKD_VENV=$(abspath $(VENV)) scripts/lint-python
