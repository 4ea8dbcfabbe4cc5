#!/usr/bin/env bash
# All checks: linter, type checker, tests. Arguments go to pytest: bash scripts/test.sh tests/test_packet.py
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh
make_environment dev
flake8 trainer scripts tests
mypy
# In the order of tests/conftest.py, the longest files first.
python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder "$@"
