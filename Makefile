# Two commands do all set-up: `make demo` runs the main job, `make test` passes the tests.
.PHONY: demo test setup lint unit system test-long test-containers test-bare test-bpf test-arm64 test-alarms bpf bench bench-peers bench-aide bench-tracers fuzz docs signals clean
.DEFAULT_GOAL := demo

PYTHON ?=
ARGS ?=
# Tests side by side. More of them would make those wait for each other that look at real time.
WORKERS ?= 2

setup:
	@PYTHON="$(PYTHON)" tools/setup.sh

demo: setup
	@.venv/bin/proofbeat demo $(ARGS)

test: lint unit system

lint: setup
	.venv/bin/ruff check --no-cache .
	.venv/bin/ruff format --no-cache --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

unit: setup
	.venv/bin/pytest tests/unit -n $(WORKERS) --dist loadfile $(ARGS)

# Whole stories, faults without end, and peers that lie: a good third of all the time that tests of the system take.
LONG = tests/system/demo tests/system/faults tests/system/hostile
# In the order of names: by how many tests a file has, the few long ones come last and alone. What fails beside others,
# which take its time, is tried once more alone.
define run
.venv/bin/pytest $(1) -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS) || { [ $$? = 1 ] && \
	echo "once more, alone:" && .venv/bin/pytest $(1) --last-failed --last-failed-no-failures none $(ARGS); }
endef

# Real processes, real Envoys, this kernel.
system: setup
	$(call run,tests/system $(LONG:%=--ignore=%))

test-long: setup
	$(call run,$(LONG))

# Workloads and sidecars in real containers. Needs root and apt-get, or podman, runc and busybox-static.
test-containers: setup
	@tools/containers.sh
	.venv/bin/pytest tests/containers -p no:cacheprovider $(ARGS)

# The two commands in a bare Debian 12, as root and as an ordinary user. Needs root and debootstrap.
test-bare:
	tools/bare-debian.sh $(ARGS)

# Seven services as they are run in earnest, a minute each: no alarm. Installs and builds them.
test-alarms: setup
	@tools/alarms.sh
	SECONDS=$(or $(SECONDS),60) .venv/bin/pytest tests/alarms -n $(WORKERS) $(ARGS)

bench: setup
	.venv/bin/proofbeat bench round $(ARGS)
	.venv/bin/proofbeat bench violation $(ARGS)
	.venv/bin/proofbeat bench cut $(ARGS)
	.venv/bin/proofbeat bench deadman $(ARGS)
	.venv/bin/proofbeat bench start $(ARGS)
	.venv/bin/proofbeat bench idle $(ARGS)
	.venv/bin/proofbeat bench node $(ARGS)
	.venv/bin/proofbeat bench xds-push $(ARGS)
	.venv/bin/proofbeat bench appraise $(ARGS)
	.venv/bin/proofbeat bench merge $(ARGS)
	.venv/bin/proofbeat bench files $(ARGS)
	.venv/bin/proofbeat bench memory $(ARGS)
	.venv/bin/proofbeat bench gate $(ARGS)
	.venv/bin/proofbeat bench syscalls $(ARGS)

# The kernel's programs, compiled from their source; and whether what is in git is what that compiles to.
bpf test-bpf: setup
	@.tools/bin/uv sync --quiet --frozen --inexact --all-extras --group bpf --python .venv/bin/python
	.venv/bin/python tools/bpf.py $(if $(filter test-bpf,$@),--check)

# The kernel's programs on a kernel for arm64, in an emulator: some minutes. Needs root and apt-get.
test-arm64: setup
	@tools/arm64.sh $(ARGS)

# What `bench xds-push` and `bench appraise` are measured beside. Needs Go, or takes it from PyPI.
bench-peers: setup
	@tools/peers.sh

# What `bench files` is measured beside. Needs root, and Debian.
bench-aide:
	apt-get install --yes --no-install-recommends aide

# What `bench syscalls` is measured beside. Needs root, and Debian.
bench-tracers:
	apt-get install --yes --no-install-recommends redis-server nginx-light strace linux-perf bpftrace

# Every parser against mutated input (docs/fuzzing.md): `make fuzz SECONDS=600 TARGET="cbor evidence" JOBS=1`.
fuzz: setup
	@.tools/bin/uv sync --quiet --frozen --inexact --all-extras --group fuzz --python .venv/bin/python
	@.venv/bin/python -m tests.fuzz --seconds $(or $(SECONDS),60) --jobs $(or $(JOBS),2) $(TARGET)

# The pages that are made from the code. Tests say which of them is behind.
docs: setup
	.venv/bin/python -m telemetry.document > docs/metrics.md
	.venv/bin/python -m wire.document > docs/problems.md
	.venv/bin/python -m policies.author.reference docs
	.venv/bin/python -m proofbeat.doctor.profiles > docs/profiles.md

# The page of signals, from two runs of some minutes each: with all privileges, and without any. Needs root.
signals: setup
	.venv/bin/proofbeat bench detect --json $(ARGS) > .signals.json || test -s .signals.json
	setpriv --bounding-set=-all --inh-caps=-all .venv/bin/proofbeat bench detect --json $(ARGS) > .restricted.json \
		|| test -s .restricted.json
	.venv/bin/python -m proofbeat.bench.detect.document .signals.json .restricted.json > docs/signals.md
	rm .signals.json .restricted.json

clean:
	rm -rf .venv .tools .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
