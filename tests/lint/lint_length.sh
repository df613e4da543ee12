#!/bin/sh
# lines per file, columns per line: lint_length.sh SOURCE_DIR BINARY_DIR
exec python3 "$(dirname "$0")/lint.py" length "$@"
