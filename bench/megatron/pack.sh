#!/usr/bin/env bash
# pack.sh CHECKOUT FILE.tar.xz [REVISION]: what a GPU machine with PyTorch alone needs of Megatron-LM (about 2 MB). Its code is never committed.
set -euo pipefail
git -C "$1" archive --format=tar "${3:-HEAD}" megatron pretrain_gpt.py gpt_builders.py model_provider.py pyproject.toml | xz -9 > "$2"
