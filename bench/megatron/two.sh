#!/usr/bin/env bash
# two.sh DIR OUT [SECONDS] [PATTERN]: what prepare.mjs put into DIR, run on two GPUs in one command of under ten minutes: the timing of
# experts on one and two GPUs, micro-batches of 1 of the dense model, and, where Transformer Engine is installed, the first losses of
# the forms with it. Needs PyTorch, and no Node. OUT gets summary.json, for planner.mjs, and the records for compare.mjs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=$(cd "$1" && pwd)
mkdir -p "$2"
out=$(cd "$2" && pwd)
megatron=$(mktemp -d)
trap 'rm -rf "$megatron"' EXIT
tar -xJf "$dir/megatron.tar.xz" -C "$megatron"
python3 "$here/all.py" "$out" --forms "$dir/forms" --version "0.20=$megatron" --arguments "$dir/arguments" --seconds "${3:-560}" \
  --at-once 2 --only "${4:-^te-|^sweep-moe|^sweep-dense-2.*mb1$}" ${ALL_MORE:-}
