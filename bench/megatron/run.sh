#!/usr/bin/env bash
# run.sh MEGATRON NAME RANKS ARGUMENTS...: pretrain_gpt.py with the small model; its log goes to NAME.log, its first batch to NAME.json.
# MODEL_FILE=FILE in the environment: another model than model.sh's, with the same names of arrays.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source "$here/model.sh"
[ -z "${MODEL_FILE:-}" ] || source "$MODEL_FILE"
megatron=$1 name=$2 ranks=$3
shift 3
case $name in /*) ;; *) name=$PWD/$name ;; esac
cd "$megatron"
RECORD=$name.json torchrun --standalone --nproc-per-node "$ranks" "$here/record.py" \
  "${LOCAL[@]}" "${MODEL[@]}" "${DATA[@]}" "${TRAINING[@]}" "$@" > "$name.log" 2>&1 || { tail -n 30 "$name.log"; exit 1; }
python3 "$here/join.py" "$name.json"
grep -E "validation loss at|lm loss:|load_return|random|recorded" "$name.log" | tail -n 5
