/** What tells one model's answers from another's. */
import { createHash } from "node:crypto";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import type { Backend } from "../../engine/runtime/runtime.js";
import { foldersOf, type ModelSource } from "../../files/checkpoint/model-source.js";
import { fileFingerprint } from "../../files/io/fingerprint.js";
import { withFsErrors } from "../../files/io/fs-errors.js";

/** A few characters that stand for texts. */
export const textIdentity = (texts: readonly string[]): string =>
  createHash("sha256").update(JSON.stringify(texts)).digest("hex").slice(0, 12);

/** Files that a model's answers depend on. */
const answeringNames: ReadonlySet<string> = new Set([
  "config.json",
  "adapter_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
]);
const answeringEnds = /(\.safetensors|\.bin|\.index\.json|\.distcp|\.metadata)$/;

/** What computes a model's answers, and how much of a text it sees. */
export interface AnsweringSettings {
  /** Of it the kind of device and its precision count, not which of several GPUs it is. */
  readonly backend: Pick<Backend, "numerics">;
  readonly maxLength: number;
}

/**
 * A few characters that stand for a model's files, and for the settings that its answers depend on too. Copies of a
 * folder have the same ones.
 */
export async function modelIdentity(source: ModelSource, { backend, maxLength }: AnsweringSettings): Promise<string> {
  const hash = createHash("sha256").update(JSON.stringify([backend.numerics, String(maxLength)]));
  for (const folder of foldersOf(source)) {
    const names = await withFsErrors(folder, "read folder", () => readdir(folder));
    for (const name of names.filter((one) => answeringNames.has(one) || answeringEnds.test(one)).sort())
      hash.update(`${name}: ${await fileFingerprint(join(folder, name))}\n`);
  }
  return hash.digest("hex").slice(0, 12);
}
