/** What a launch file names beside its checkpoint, as empty files: data, tokenizer, Megatron-LM. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** Writes `data.bin` and `.idx`, `tok` and `megatron/pretrain_gpt.py` into a folder. */
export function writeRunInputs(folder: string): void {
  for (const name of ["tok", "megatron"]) mkdirSync(join(folder, name), { recursive: true });
  for (const name of ["data.bin", "data.idx", "megatron/pretrain_gpt.py"]) writeFileSync(join(folder, name), "");
}
