#!/usr/bin/env bash
# Runs every test. cargo-nextest is preferred, because it ends tests that hang; `cargo test` does without it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The examples in the documentation first, which nextest does not run; so the last lines are about the tests proper.
cargo test --locked --doc

if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --locked --no-tests=fail "$@"
else
    echo "test: cargo-nextest is missing; running cargo test, which does not end hung tests" >&2
    cargo test --locked --lib --bins --tests -- --test-threads="$(nproc)" "$@"
fi
