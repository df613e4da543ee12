#!/bin/sh
# calls that are banned, or belong to cli/ alone: lint_calls.sh SOURCE_DIR BINARY_DIR
exec python3 "$(dirname "$0")/lint.py" calls "$@"
