/** What the tests of model folders share. */
import { createHash } from "node:crypto";
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { UpcycleError } from "../../../src/base/errors.js";
import { openCheckpoint } from "../../../src/files/checkpoint/open.js";
import type { Checkpoint } from "../../../src/files/checkpoint/open.js";
import { writeCheckpoint } from "../../../src/files/checkpoint/write.js";
import type { WriteDtype, WriteOptions } from "../../../src/files/checkpoint/write.js";
import { encodeSafetensors } from "../../../src/files/formats/safetensors.js";
import { parseSafetensors } from "../../support/safetensors.js";
import type { TensorMeta } from "../../../src/files/formats/safetensors.js";
import { slotsOf } from "../../../src/model/tensors/slots.js";
import { golden } from "../../support/golden.js";
import { temporaryFolder } from "../io/temporary.js";

/** Removed when the test file is done. */
export const root = temporaryFolder();
let counter = 0;
export const fresh = (): string => join(root, String(counter++));

export async function withCheckpoint<T>(dir: string, use: (checkpoint: Checkpoint) => Promise<T>): Promise<T> {
  const checkpoint = await openCheckpoint(dir);
  try {
    return await use(checkpoint);
  } finally {
    await checkpoint.close();
  }
}

export const rewrite = (
  source: Checkpoint,
  dir: string,
  extra: Partial<WriteOptions> = {},
): ReturnType<typeof writeCheckpoint> =>
  writeCheckpoint({
    dir,
    spec: source.spec,
    dtype: source.dtype as WriteDtype,
    weights: ({ key }) => source.readBytes(key),
    carry: source.dir,
    ...extra,
  });

/** Precision, size and hash of each slot's bytes: vitest compares arrays element by element, which takes seconds. */
export const allBytes = async (checkpoint: Checkpoint): Promise<[string, string][]> =>
  Promise.all(
    slotsOf(checkpoint.spec).map(async ({ key }): Promise<[string, string]> => {
      const { dtype, bytes } = await checkpoint.readBytes(key);
      return [key, `${dtype} ${bytes.byteLength} ${createHash("sha256").update(bytes).digest("hex")}`];
    }),
  );

export async function failure(promise: Promise<unknown>): Promise<UpcycleError> {
  const error: unknown = await promise.then(
    () => undefined,
    (cause: unknown) => cause,
  );
  expect(error).toBeInstanceOf(UpcycleError);
  expect((error as UpcycleError).line).not.toContain("\n");
  return error as UpcycleError;
}

export type Tensor = TensorMeta & { bytes: Uint8Array };

/** A copy of a golden single-file model whose tensors went through `change`. */
export function variant(model: string, change: (tensors: Tensor[]) => Tensor[] = (tensors) => tensors): string {
  const dir = fresh();
  cpSync(golden(model), dir, { recursive: true });
  const path = join(dir, "model.safetensors");
  const file = new Uint8Array(readFileSync(path));
  const tensors = [...parseSafetensors(file, path).tensors].map(([name, { dtype, shape, begin, end }]) => ({
    name,
    dtype,
    shape,
    bytes: file.slice(begin, end),
  }));
  writeFileSync(path, encodeSafetensors(change(tensors)));
  return dir;
}
