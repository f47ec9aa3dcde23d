#!/usr/bin/env bash
# Everything that must hold, cheap first: format, lint, imports, types, tests, doctests, examples.
set -euo pipefail
cd "$(dirname "$0")"
venv=${VENV:-.venv}
if ! "$venv/bin/python" -c 'import pytest, hypothesis, ruff, mypy, importlinter, xdist, PIL' 2>/dev/null; then
  ./setup.sh --dev
fi
export PATH="$(cd "$venv/bin" && pwd):$PATH"
step() { printf '\n== %s\n' "$*"; "$@"; }
step ruff format --check
step ruff check
step lint-imports --no-logo
step mypy
step pytest -n "${JOBS:-2}" tests
step pytest --doctest-modules src/tombola
step python examples/01_first_ticket.py --tiny --out "$(mktemp -d)"
printf '\nEverything holds.\n'
