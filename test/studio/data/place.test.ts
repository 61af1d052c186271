import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { listOf, listSetting, parsePlace, placeHash, viewNames } from "../../../src/studio/data/place.js";

const name = fc
  .array(
    fc.string({ minLength: 1, maxLength: 8, unit: "binary" }).filter((part) => !part.includes("/")),
    { maxLength: 4 },
  )
  .map((parts) => parts.join("/"));

describe("addresses of views", () => {
  it("are read as they were written, whatever names and settings hold", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...viewNames.slice(1)),
        name,
        fc.dictionary(fc.string({ minLength: 1, unit: "binary" }), fc.string({ minLength: 1, unit: "binary" })),
        (view, of, settings) => {
          fc.pre([of, ...Object.entries(settings).flat()].every((text) => !/\p{Cs}/u.test(text)));
          expect(parsePlace(placeHash({ view, name: of, settings }))).toEqual({ view, name: of, settings });
        },
      ),
      { numRuns: 500 },
    );
  });

  it("are the start page where nothing is known, and never throw", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        expect(viewNames).toContain(parsePlace(text).view);
      }),
      { numRuns: 500 },
    );
    expect(parsePlace("#/nowhere/x?y=1")).toEqual({ view: "", name: "", settings: {} });
    expect(parsePlace("#/run/%E0%A4%A")).toEqual({ view: "run", name: "%E0%A4%A", settings: {} });
  });

  it("hold lists of names with spaces and commas", () => {
    const names = ["a b/c", "d,e", "f%20g"];
    expect(listOf(listSetting(names))).toEqual(names);
    expect(listOf(undefined)).toEqual([]);
  });
});
