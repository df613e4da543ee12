#!/bin/sh
# who may include whom, and each third-party library named in one place: lint_includes.sh SOURCE_DIR BINARY_DIR
exec python3 "$(dirname "$0")/lint.py" includes "$@"
