#!/bin/sh
# Make a virtual environment in $1 with the fittest Python at hand (PYTHON=… to choose one).
set -eu

# A version manager's shim may stand for a Python that is not installed, and a distribution may ship Python without
# ensurepip: only running it tells.
fit='import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))'
for python in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
    if "$python" -c "$fit" >/dev/null 2>&1; then
        if mkdir -p "$1" 2>/dev/null && [ -w "$1" ]; then
            exec "$python" -m venv --clear "$1"
        fi
        echo "make: $1 cannot be written by $(id -un); use a checkout of your own, or name a place: make VENV=DIRECTORY …" >&2
        exit 1
    fi
done
echo "make: no usable Python of 3.11 or newer (with venv and ensurepip) was found: looked for ${PYTHON:-python3.13, python3.12, python3.11, python3}; install one, or name it: make PYTHON=/path/to/python3 …" >&2
exit 1
