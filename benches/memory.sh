#!/bin/sh
# memory.sh [MB…]: peak memory of a backup, a verify and a restore, for inputs of
# these sizes (default: 10 and 2000 MB), to a directory. Shows whether memory is
# flat: the ratio of the largest input to the smallest.
#
# Half of the input does not compress, half is text. Peak memory is the kernel's
# own count of the process's largest resident set, in KiB (getrusage, through
# Python's resource module).
set -eu
cd "$(dirname "$0")/.."
PYTHON=${OFFSITE_TEST_PYTHON:-python3}
cargo build --release --locked --quiet
exec "$PYTHON" -B benches/memory.py "$@"
