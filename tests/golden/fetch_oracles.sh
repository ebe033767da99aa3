#!/bin/sh
# Unpacks the Python packages that tests use as oracles into DEST. Nothing is installed.
# usage: fetch_oracles.sh DEST
set -eu
dest=$1
have() { PYTHONPATH=$dest python3 -c 'import sentencepiece, tokenizers' 2>/dev/null; }
if have; then exit 0; fi
mkdir -p "$dest/wheels"
python3 -m pip --disable-pip-version-check download --quiet --no-deps --only-binary :all: --dest "$dest/wheels" \
  'tokenizers==0.23.3' 'sentencepiece==0.2.3'
for wheel in "$dest"/wheels/*.whl; do python3 -m zipfile -e "$wheel" "$dest"; done
have
