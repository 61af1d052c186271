# The small model of these checks and what Megatron-LM needs without Transformer Engine; sourced by the other scripts.
export CUDA_DEVICE_MAX_CONNECTIONS=1 NVIDIA_TF32_OVERRIDE=0 TORCH_COMPILE_DISABLE=1
LOCAL=(--transformer-impl local --no-rope-fusion --no-masked-softmax-fusion --no-persist-layer-norm
  --no-gradient-accumulation-fusion --no-bias-swiglu-fusion --no-bias-dropout-fusion)
MODEL=(--num-layers 4 --hidden-size 256 --num-attention-heads 8 --kv-channels 32 --group-query-attention --num-query-groups 4
  --ffn-hidden-size 704 --seq-length 256 --max-position-embeddings 256 --position-embedding-type rope --normalization RMSNorm
  --swiglu --disable-bias-linear --untie-embeddings-and-output-weights --hidden-dropout 0 --attention-dropout 0)
DATA=(--mock-data --tokenizer-type NullTokenizer --vocab-size 1024 --make-vocab-size-divisible-by 1)
# Megatron-LM stops where the warm-up is not shorter than the decay, which is --train-iters.
TRAINING=(--micro-batch-size 4 --global-batch-size 16 --lr 1e-3 --min-lr 1e-4 --lr-warmup-iters 1 --weight-decay 0.01
  --eval-iters 1 --eval-interval 1000 --save-interval 1000 --log-interval 1 --seed 1234 --ckpt-format torch_dist)
