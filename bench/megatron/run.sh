#!/usr/bin/env bash
# run.sh MEGATRON NAME RANKS ARGUMENTS...: pretrain_gpt.py with the small model; its log goes to NAME.log, its first batch to NAME.json.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source "$here/model.sh"
megatron=$1 name=$2 ranks=$3
shift 3
case $name in /*) ;; *) name=$PWD/$name ;; esac
cd "$megatron"
RECORD=$name.json torchrun --nproc-per-node "$ranks" "$here/record.py" \
  "${LOCAL[@]}" "${MODEL[@]}" "${DATA[@]}" "${TRAINING[@]}" "$@" > "$name.log" 2>&1 || { tail -n 30 "$name.log"; exit 1; }
grep -E "validation loss at|lm loss:|load_return|random|recorded" "$name.log" | tail -n 5
