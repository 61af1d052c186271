/** Arguments of pretrain_gpt.py over those of `upcycle launch` for runs on Megatron-LM's mock data, by a vocabulary. */
export const mockArguments = (vocabulary) => ({
  "--mock-data": true,
  "--data-path": false,
  "--split": false,
  "--tokenizer-type": "NullTokenizer",
  "--tokenizer-model": false,
  "--vocab-size": vocabulary,
  "--eval-iters": 1,
  "--exit-signal-handler": false,
});
