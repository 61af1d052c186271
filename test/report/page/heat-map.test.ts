import { describe, expect, it } from "vitest";
import {
  classOf,
  cosineScale,
  heatLayout,
  heatSvg,
  loadScale,
  multiplesOf,
  scaleClasses,
  scaleMarkup,
  type HeatMapSpec,
} from "../../../src/report/page/heat-map.js";

const spec: HeatMapSpec = {
  title: "load <b>",
  values: [
    [0, 1, null, 5],
    [0.5, 1, 1, 2],
  ],
  rowName: (row) => `layer ${row}`,
  rowEnd: (row) => `${row}×`,
  scale: loadScale,
};

describe("the classes of a scale", () => {
  it("begin at the ends that a value reaches, and leave class 0 to what is dead", () => {
    expect([0, 0.0099, 0.01, 1, 1.25, 3.99, 4].map((load) => classOf(load, loadScale))).toEqual([0, 0, 1, 4, 5, 6, 7]);
    expect([-1, 0, 0.5, 0.95, 1].map((cosine) => classOf(cosine, cosineScale))).toEqual([1, 1, 3, 5, 7]);
  });

  it("have names, of which only a load's lowest is called dead", () => {
    expect(scaleClasses(loadScale).map(({ name }) => name)).toEqual([
      "dead (< 0.01)",
      "0.01 to 0.25",
      "0.25 to 0.5",
      "0.5 to 0.8",
      "0.8 to 1.25",
      "1.25 to 2",
      "2 to 4",
      "≥ 4",
    ]);
    expect(scaleClasses(multiplesOf("× chance"))[0]?.name).toBe("< 0.01");
    expect(scaleMarkup(multiplesOf("× chance")).match(/<i class="cell l[0-7]">/g)).toHaveLength(8);
    expect(scaleMarkup(cosineScale).match(/<i class="cell s[1-7]">/g)).toHaveLength(7);
  });
});

describe("a map as SVG", () => {
  const svg = heatSvg(spec);

  it("has a cell for every value in a path of its class, a cross for a dead one and nothing for none", () => {
    const cells = [...svg.matchAll(/<path ([^>]*) d="([^"]*)"/g)].map(([, paint, d = ""]) => [
      paint,
      d.match(/z/g)?.length,
    ]);
    expect(cells).toEqual([
      ['fill="none" stroke="var(--ink)"', 1],
      ['fill="var(--l3)"', 1],
      ['fill="var(--l4)"', 3],
      ['fill="var(--l6)"', 1],
      ['fill="var(--l7)"', 1],
    ]);
  });

  it("names rows, columns and what stands behind a row, and escapes the title", () => {
    const texts = [...svg.matchAll(/<text[^>]*>([^<]*)</g)].map(([, text]) => text);
    expect(texts).toEqual(["0", "1", "2", "3", "layer 0", "0×", "layer 1", "1×"]);
    expect(svg).toContain('aria-label="load &lt;b&gt;"');
    expect(svg).not.toContain("style=");
  });

  it("leaves a gap between groups and stays inside of its width", () => {
    const { left, cell, gap, width } = heatLayout({ ...spec, group: 2 }, 440);
    expect(gap).toBeGreaterThan(0);
    expect(left + 4 * cell + gap).toBeLessThanOrEqual(width - 48 + 1e-9);
    const many = { ...spec, values: [new Array<number>(256).fill(1)], group: 8 };
    const layout = heatLayout(many, 440);
    expect(layout.left + 256 * layout.cell + 31 * layout.gap).toBeLessThanOrEqual(440);
  });
});
