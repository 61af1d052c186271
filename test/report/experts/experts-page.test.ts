/** The page and the tables of a made-up report: many experts, a hostile name, one that no token chose. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { describe, expect, it } from "vitest";
import type { ExpertLayer } from "../../../src/model/results/experts.js";
import { renderExpertsPage } from "../../../src/report/experts/experts-page.js";
import { expertsText } from "../../../src/report/experts/experts-terminal.js";
import { findings, largestPair, pairMean, specialists } from "../../../src/report/experts/words.js";
import { temporaryFolder } from "../../files/io/temporary.js";
import { chromium, openPage } from "../../support/browser.js";
import { expertsReport } from "./fixture.js";

const page = (experts: number): string =>
  renderExpertsPage(
    expertsReport(experts),
    { model: "moe", parent: null, command: "upcycle experts moe", version: "0.0.0" },
    { script: "", style: "" },
  );

describe("words", () => {
  it("say which expert is never chosen, with what the sample excludes, and what is more than chance", () => {
    const [load, special, cost] = findings(expertsReport(8));
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
    const [{ similarity }] = expertsReport(8).layers as [ExpertLayer];
    expect(largestPair(similarity.weights)).toEqual({ pair: [2, 3], value: 0.97 });
    expect(pairMean(similarity.weights)).toBeCloseTo((27 * 0.1 + 0.97) / 28, 12);
    expect(specialists(expertsReport(8), 2).map(({ expert, what }) => [expert, what])).toEqual([
      [1, "digits"],
      [1, "digits"],
    ]);
  });
});

describe("the terminal's tables", () => {
  it.each([8, 64, 256])("have at most 80 columns with %d experts", (experts) => {
    const lines = expertsText(expertsReport(experts), { model: "moe", parent: null }, 80);
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
