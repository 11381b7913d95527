#!/usr/bin/env bash
# Runs every test. cargo-nextest is preferred, because it ends the test that hangs; without it all end after an hour.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Where scripts/setup.sh puts what the machine lacks; what it has comes first.
mkdir -p "${CARGO_TARGET_DIR:-target}"
PATH=$PATH:$(cd "${CARGO_TARGET_DIR:-target}" && pwd)/drivers/venv/bin

# The examples in the documentation first, which nextest does not run; so the last lines are about the tests proper.
cargo test --locked --doc

if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --locked --no-tests=fail "$@"
else
    echo "test: cargo-nextest is missing; running cargo test, which a hung test ends after an hour" >&2
    limit=()
    ! command -v timeout >/dev/null || limit=(timeout --kill-after=10s 1h)
    "${limit[@]}" cargo test --locked --lib --bins --tests -- --test-threads="$(nproc)" "$@"
fi
