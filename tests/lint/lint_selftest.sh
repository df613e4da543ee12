#!/bin/sh
# each lint finds a planted violation and nothing else: lint_selftest.sh SOURCE_DIR BINARY_DIR
exec python3 "$(dirname "$0")/lint.py" selftest "$@"
