import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { splitDocuments, utf8Length } from "../../../src/text/tokens/split.js";

const documentsOf = (texts: readonly string[]) => texts.map((text, i) => ({ name: `d${i}`, text }));
const textsOf = (documents: readonly { text: string }[]) => documents.map((document) => document.text).sort();
const anyText = fc.string({ unit: "binary", minLength: 1, maxLength: 60 });
const differentTexts = fc.uniqueArray(anyText, { minLength: 2, maxLength: 40 });
const fraction = fc.double({ min: 0.01, max: 0.9, noNaN: true });

describe("splitDocuments", () => {
  it("loses nothing, shares nothing, leaves neither side empty and keeps the order", () => {
    fc.assert(
      fc.property(differentTexts, fraction, fc.integer(), (texts, heldOut, seed) => {
        const documents = documentsOf(texts);
        const split = splitDocuments(documents, { seed, heldOut });
        expect(split.train.length).toBeGreaterThan(0);
        expect(split.heldOut.length).toBeGreaterThan(0);
        const heldOutSet = new Set(split.heldOut);
        expect(split.train).toEqual(documents.filter((document) => !heldOutSet.has(document)));
        expect(split.heldOut).toEqual(documents.filter((document) => heldOutSet.has(document)));
        const bytes = (list: readonly { text: string }[]) => list.reduce((sum, { text }) => sum + utf8Length(text), 0);
        expect([split.trainBytes, split.heldOutBytes]).toEqual([bytes(split.train), bytes(split.heldOut)]);
      }),
    );
  });

  it("holds out at most the wanted bytes, or the shortest document", () => {
    fc.assert(
      fc.property(differentTexts, fraction, (texts, heldOut) => {
        const split = splitDocuments(documentsOf(texts), { seed: 1, heldOut });
        const shortest = Math.min(...texts.map(utf8Length));
        expect(split.heldOutBytes).toBeLessThanOrEqual(
          Math.max(shortest, heldOut * (split.trainBytes + split.heldOutBytes)),
        );
      }),
    );
  });

  it("depends on the texts and the seed, not on order or names", () => {
    fc.assert(
      fc.property(differentTexts, fc.integer(), (texts, seed) => {
        const split = splitDocuments(documentsOf(texts), { seed, heldOut: 0.3 });
        const reversed = splitDocuments(documentsOf([...texts].reverse()), { seed, heldOut: 0.3 });
        expect(textsOf(reversed.heldOut)).toEqual(textsOf(split.heldOut));
      }),
    );
  });

  it("comes close to the wanted share on many documents, for every seed", () => {
    const documents = documentsOf(Array.from({ length: 300 }, (_, i) => `${i} `.repeat(50 + (i % 100))));
    const choices = new Set<string>();
    for (let seed = 0; seed < 10; seed++) {
      const split = splitDocuments(documents, { seed, heldOut: 0.05 });
      const share = split.heldOutBytes / (split.trainBytes + split.heldOutBytes);
      expect(share).toBeGreaterThan(0.045);
      expect(share).toBeLessThanOrEqual(0.05);
      choices.add(textsOf(split.heldOut).join());
    }
    expect(choices.size).toBe(10);
  });

  it("keeps copies of one text on one side", () => {
    const documents = documentsOf(["same", "a b c", "same", "d e f", "same", "g h i"]);
    for (let seed = 0; seed < 20; seed++) {
      const split = splitDocuments(documents, { seed, heldOut: 0.6 });
      const copies = split.heldOut.filter(({ text }) => text === "same").length;
      expect([0, 3]).toContain(copies);
    }
  });

  it("cuts a text that is one document at a paragraph near its end", () => {
    const text = Array.from({ length: 40 }, (_, i) => `Paragraph ${i} of the only document.`).join("\n\n");
    const { train, heldOut, trainBytes, heldOutBytes } = splitDocuments(documentsOf([text]), { seed: 0, heldOut: 0.1 });
    expect(at(train, 0).text + at(heldOut, 0).text).toBe(text);
    expect(at(heldOut, 0).text.startsWith("Paragraph")).toBe(true);
    expect(trainBytes + heldOutBytes).toBe(text.length);
    expect(heldOutBytes / text.length).toBeGreaterThanOrEqual(0.1);
    expect(heldOutBytes / text.length).toBeLessThan(0.2);
  });

  it("refuses documents that are too few or too short, saying what it found", () => {
    expect(() => splitDocuments(documentsOf(["x", "", "x"]), { seed: 0, heldOut: 0.1 })).toThrow(
      "too little text to split: found one document of 1 characters and no place to cut it",
    );
    expect(() => splitDocuments([], { seed: 0, heldOut: 0.1 })).toThrow(
      "too little text to split: every document is empty",
    );
    for (const heldOut of [0, 1, -0.1, NaN]) {
      expect(() => splitDocuments(documentsOf(["x", "y"]), { seed: 0, heldOut })).toThrow("between 0 and 1");
    }
  });
});

it("utf8Length counts as an encoder does", () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 0xffff })), (units) => {
      const text = String.fromCharCode(...units);
      expect(utf8Length(text)).toBe(new TextEncoder().encode(text).length);
    }),
  );
  expect(utf8Length("a\u00e9\u4e2d\u{1f642}")).toBe(1 + 2 + 3 + 4);
});
