#!/bin/sh
# inspect.sh PYTHON ARCHIVE JSON: inspect_kernels.py with the tools that are here. Exit code 77: there are none.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
tools=$("$root/tools/fetch-cuda-tools.sh" --find) || {
    echo "skipped: no cuobjdump and nvdisasm (tools/fetch-cuda-tools.sh fetches them)"
    exit 77
}
exec "$1" -B "$root/tests/cuda_inspection/inspect_kernels.py" "$2" "$tools" --json "$3"
