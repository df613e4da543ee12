#!/bin/sh
# no large files, paths of one machine, registry hosts or unfinished work: lint_tracked.sh SOURCE_DIR BINARY_DIR
exec python3 "$(dirname "$0")/lint.py" tracked "$@"
