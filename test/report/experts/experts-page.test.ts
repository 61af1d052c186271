/** The page and the tables of a made-up report: many experts, a hostile name, one that no token chose. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { describe, expect, it } from "vitest";
import { loadOf, sharesOf } from "../../../src/experts/measures/load.js";
import { coactivationOf } from "../../../src/experts/measures/coactivation.js";
import { tokenClasses } from "../../../src/experts/measures/token-class.js";
import type { ExpertLayer, ExpertsReport } from "../../../src/model/results/experts.js";
import { renderExpertsPage } from "../../../src/report/experts/experts-page.js";
import { expertsText } from "../../../src/report/experts/experts-terminal.js";
import { findings, largestPair, pairMean, specialists } from "../../../src/report/experts/words.js";
import { temporaryFolder } from "../../files/io/temporary.js";
import { chromium, openPage } from "../../support/browser.js";

const tokens = 4096;
const hostile = '<img src=x onerror="alert(1)">.txt';

/** A layer of `experts`, of which the last is never chosen and expert 1 prefers digits. */
function layerOf(layer: number, experts: number): ExpertLayer {
  const counts = Array.from({ length: experts }, (_, e) =>
    e === experts - 1 ? 0 : 100 + ((e * 37 + layer * 11) % 50),
  );
  const matrix = (value: (a: number, b: number) => number): number[][] =>
    counts.map((_, a) => counts.map((__, b) => (a === b ? 1 : value(Math.min(a, b), Math.max(a, b)))));
  const digits = counts.map((count, e) => (e === 1 ? 5 * count : count));
  const certain = { bits: 0.3, byChance: 0.01, excess: 0.29, p: 0.01, most: 2 };
  return {
    layer,
    experts,
    topK: 2,
    load: loadOf(counts, tokens),
    byText: [sharesOf(counts), sharesOf(counts)],
    byClass: tokenClasses.map((name) => (name === "special" ? null : sharesOf(name === "digits" ? digits : counts))),
    specialisation: { text: { ...certain, excess: -0.001, p: 0.6 }, tokenClass: certain },
    router: { entropy: 1, relativeEntropy: 0.5, mass: 0.7, margin: 0.02, margins: [0.001, 0.01, 0.05] },
    coactivation: coactivationOf(matrix((a, b) => (a + b) % 7).map((row, a) => row.map((v, b) => (a === b ? 50 : v)))),
    similarity: {
      weights: matrix((a, b) => (a === 2 && b === 3 ? 0.97 : 0.1)),
      matrices: {},
      outputs: matrix(() => 0.5),
      inputs: 256,
      parent: null,
    },
    contribution: counts.map(() => 1 / experts),
  };
}

const report = (experts: number): ExpertsReport => ({
  version: 1,
  model: "/models/moe",
  family: "mixtral",
  parent: null,
  texts: [
    { name: hostile, observed: 8, heldOut: 8 },
    { name: "prose.txt", observed: 8, heldOut: 8 },
  ],
  sequence: 256,
  tokens,
  heldOutTokens: 4096,
  classes: tokenClasses.map((name) => ({ name, tokens: name === "special" ? 0 : 600 })),
  seed: 0,
  layers: [0, 1].map((layer) => layerOf(layer, experts)),
  loss: 3,
  costs: [
    {
      kind: "merged",
      groups: [{ layer: 0, experts: [2, 3] }],
      asked: false,
      expected: 0.01,
      loss: 3.001,
      difference: 0.001,
      error: 0.0004,
      interval: [0.0002, 0.0018],
      byText: [0.001, 0.001],
    },
  ],
});

const page = (experts: number): string =>
  renderExpertsPage(
    report(experts),
    { model: "moe", parent: null, command: "upcycle experts moe", version: "0.0.0" },
    { script: "", style: "" },
  );

describe("words", () => {
  it("say which expert is never chosen, with what the sample excludes, and what is more than chance", () => {
    const [load, special, cost] = findings(report(8));
    // 1 - 0.05^(1/4096) = 1 in 1368.
    expect(load).toContain("2 experts were never chosen by 4,096 tokens");
    expect(load).toContain("chosen by more than 1 token in 1.37K");
    expect(special).toContain("of the token's class up to 0.290 of 2.00 bits (layer 0)");
    expect(special).toContain("of its text no more than chance would in any layer");
    expect(cost).toBe(
      "Cheapest to merge of those measured: 0:2+3, +0.00100 nats per token ± 0.00040 on a loss of 3.0000.",
    );
  });

  it("find the most similar pair, the mean over pairs and the expert that prefers digits", () => {
    const [{ similarity }] = report(8).layers as [ExpertLayer];
    expect(largestPair(similarity.weights)).toEqual({ pair: [2, 3], value: 0.97 });
    expect(pairMean(similarity.weights)).toBeCloseTo((27 * 0.1 + 0.97) / 28, 12);
    expect(specialists(report(8), 2).map(({ expert, what }) => [expert, what])).toEqual([
      [1, "digits"],
      [1, "digits"],
    ]);
  });
});

describe("the terminal's tables", () => {
  it.each([8, 64, 256])("have at most 80 columns with %d experts", (experts) => {
    const lines = expertsText(report(experts), { model: "moe", parent: null }, 80);
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(80);
  });
});

describe("the page", () => {
  it("shows hostile names as they are, and draws every matrix", () => {
    expect(page(8)).not.toContain("<img");
    expect(page(8)).toContain("&lt;img src=x onerror=&quot;alert(1)&quot;&gt;.txt");
    expect(
      page(8).match(
        /<svg class="heat-svg"[^>]* aria-label="layer \d, w|<svg class="heat-svg"[^>]* aria-label="layer \d, o|<svg class="heat-svg"[^>]* aria-label="layer \d: most/g,
      ),
    ).toHaveLength(6);
  });

  it.skipIf(chromium === undefined)("fits 390 px with 64 experts, in both modes, without errors", async () => {
    const file = join(temporaryFolder(), "page.html");
    writeFileSync(file, page(64));
    const { page: shown, errors } = await openPage(pathToFileURL(file).href);
    await shown.setViewport({ width: 390, height: 800 });
    const colours: string[] = [];
    for (const value of ["light", "dark"]) {
      await shown.emulateMediaFeatures([{ name: "prefers-color-scheme", value }]);
      const [width, colour] = (await shown.evaluate(`[
        document.documentElement.scrollWidth,
        getComputedStyle(document.querySelector("svg.heat-svg path[fill^=var]")).fill,
      ]`)) as [number, string];
      expect(width).toBe(390);
      colours.push(colour);
    }
    expect(new Set(colours).size).toBe(2);
    expect(errors).toEqual([]);
  });
});
