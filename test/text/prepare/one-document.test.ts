import { readdirSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { readIndexed } from "../../../src/text/documents/indexed.js";
import { writeOneDocument } from "../../../src/text/prepare/one-document.js";
import { temporaryFolder } from "../../files/io/temporary.js";

const dir = temporaryFolder();

it.each([
  [100, Uint16Array],
  [100_000, Int32Array],
])("one document of a vocabulary of %i is read as it was written", async (vocab, kind) => {
  const prefix = join(dir, `of-${vocab}`);
  await writeOneDocument(prefix, Int32Array.of(3, 1, 99), vocab);
  const { tokens, documents } = await readIndexed(prefix);
  expect(tokens).toEqual(kind.from([3, 1, 99]));
  expect([...documents]).toEqual([0, 3]);
});

it("ids that cannot be written leave no file, not even a partial one", async () => {
  const before = readdirSync(dir);
  const tokens = Int32Array.of(1, 2, 3);
  // Its memory goes elsewhere, as to another thread.
  structuredClone(tokens.buffer, { transfer: [tokens.buffer] });
  await expect(writeOneDocument(join(dir, "lost"), tokens, 100_000)).rejects.toThrow("detached");
  expect(readdirSync(dir)).toEqual(before);
});
