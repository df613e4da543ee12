#!/bin/sh
# external symbols start with the name of their folder: lint_symbols.sh SOURCE_DIR BINARY_DIR
exec python3 "$(dirname "$0")/lint.py" symbols "$@"
