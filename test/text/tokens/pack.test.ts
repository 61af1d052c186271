import fc from "fast-check";
import { expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { tokenPacker } from "../../../src/text/tokens/pack.js";

function packDocuments(
  documents: readonly Int32Array[],
  endOfText: number,
): { readonly tokens: Int32Array; readonly documents: Int32Array } {
  const packer = tokenPacker(endOfText);
  for (const document of documents) packer.add(document);
  return packer.finish();
}

it("documents lie one after another, each closed by end of text", () => {
  const packed = packDocuments([Int32Array.of(5, 6), Int32Array.of(), Int32Array.of(7)], 0);
  expect([...packed.tokens]).toEqual([5, 6, 0, 0, 7, 0]);
  expect([...packed.documents]).toEqual([0, 3, 4, 6]);
});

it("no documents pack to no tokens", () => {
  const packed = packDocuments([], 0);
  expect(packed.tokens.length).toBe(0);
  expect([...packed.documents]).toEqual([0]);
});

it("every document can be read back", () => {
  fc.assert(
    fc.property(fc.array(fc.int32Array({ min: 1, max: 50_000, maxLength: 3000 }), { maxLength: 20 }), (documents) => {
      const { tokens, documents: offsets } = packDocuments(documents, 0);
      expect(offsets.length).toBe(documents.length + 1);
      expect(tokens.length).toBe(offsets[documents.length]);
      documents.forEach((document, i) => {
        expect(tokens.subarray(offsets[i], at(offsets, i + 1) - 1)).toEqual(document);
        expect(tokens[at(offsets, i + 1) - 1]).toBe(0);
      });
    }),
  );
});
