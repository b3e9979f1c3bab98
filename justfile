# What people do here. `just` lists it.

_list:
    @just --list

# Watch two agents talk.
demo:
    cargo run --release -- demo

# Run a broker in this directory.
run *args:
    cargo run --release -- up {{ args }}

# Everything that must hold before a change goes in; or only the tests whose names match.
test *names:
    ./scripts/test {{ names }}

# Format and lint.
lint:
    cargo fmt
    cargo clippy --all-targets -- -D warnings

# Measure (see docs/performance.md).
bench *args:
    cargo bench {{ args }}

# Build the documentation and open it.
docs:
    cargo doc --no-deps --document-private-items --open

# The figures of docs/reliability.md that the suite does a part of, whole.
figures:
    RELAY_FIGURES=1 cargo test --locked --test house -- --nocapture --test-threads 1 \
        messages_survive_cuts kills_at_random_moments a_kill_at_each_step killed_at_calls agents_of_one_name agents_that_come_and_go \
        an_agent_that_floods
    RELAY_FIGURES=1 cargo test --locked --test terminal -- --nocapture flood_then_exit
    RELAY_FIGURES=1 cargo test --locked --test hostile -- --nocapture the_backoff_after_a_healthy_session

# Random schedules through the models of the cursor and the session.
soak schedules="1000000":
    MODEL_CASES={{ schedules }} cargo test --release --locked --lib model::

# Hostile inputs at each door that others' words come in by, so many seconds each (needs cargo-fuzz).
fuzz seconds="60":
    fuzz/seed.sh
    for door in frames payload typed screen config; do \
        RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none $door -- -max_total_time={{ seconds }} -max_len=16384 -timeout=20 || exit 1; \
    done

# Run the tests again and again until one fails: `just repeat 50 reconnect`.
repeat times="20" *names="":
    for round in $(seq {{ times }}); do echo "round $round"; cargo test --locked -q -- {{ names }} || exit 1; done

# Licences, advisories and duplicate versions (needs cargo-deny).
deny:
    cargo deny check
