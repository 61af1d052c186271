import { inflateSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { pngBytes } from "../../../src/files/io/png.js";
import { dashed, rasterOf } from "../../../src/report/page/raster.js";
import type { Figure, Shape } from "../../../src/report/page/figure-shapes.js";

const figure = (...shapes: Shape[]): Figure => ({ title: "", width: 40, height: 20, frame: [5, 5, 35, 15], shapes });

/** The colour of a pixel of the picture, which has two for each of the figure. */
function colour(drawn: Figure, x: number, y: number): number[] {
  const { width, pixels } = rasterOf(drawn);
  const index = 3 * (2 * y * width + 2 * x);
  return [...pixels.subarray(index, index + 3)];
}

describe("a figure as pixels", () => {
  it("has bands in their colour over white, as strong as they are opaque, within the frame", () => {
    const band: Shape = {
      kind: "band",
      points: [
        [0, 0],
        [40, 0],
        [40, 20],
        [0, 20],
      ],
      fill: "#ff0000",
      opacity: 0.5,
    };
    expect(colour(figure(band), 10, 10)).toEqual([255, 128, 128]);
    expect(colour(figure(band), 2, 10)).toEqual([255, 255, 255]);
    expect(colour(figure(band), 10, 17)).toEqual([255, 255, 255]);
  });

  it("covers pixels in part at the edge of a shape", () => {
    const half: Shape = {
      kind: "band",
      points: [
        [10, 5],
        [20.25, 5],
        [20.25, 15],
        [10, 15],
      ],
      fill: "#000000",
      opacity: 1,
    };
    const { width, pixels } = rasterOf(figure(half));
    const row = [...pixels.subarray(3 * (20 * width + 38), 3 * (20 * width + 43))].filter((_, i) => i % 3 === 0);
    expect(row).toEqual([0, 0, 128, 255, 255]);
  });

  it("draws lines as wide as they are, and their dashes", () => {
    const line: Shape = {
      kind: "line",
      points: [
        [6, 10],
        [30, 10],
      ],
      stroke: "#0000ff",
      width: 2,
      dash: [],
      clipped: true,
    };
    expect([8, 9, 10, 11].map((y) => colour(figure(line), 12, y)[0])).toEqual([255, 0, 0, 255]);
    const dashes = figure({ ...line, dash: [4, 4] });
    expect([7, 12, 15, 20].map((x) => colour(dashes, x, 10)[0])).toEqual([0, 255, 0, 255]);
    expect(
      dashed(
        [
          [0, 0],
          [3, 0],
          [3, 4],
        ],
        [5, 1],
      ),
    ).toEqual([
      [
        [0, 0],
        [3, 0],
        [3, 2],
      ],
      [
        [3, 3],
        [3, 4],
      ],
    ]);
  });

  it("draws text from its anchor, with a question mark for what has no glyph", () => {
    const text = (anchor: "start" | "end", content: string): Figure =>
      figure({ kind: "text", at: [20, 14], anchor, text: content, fill: "#000000" });
    const inked = (drawn: Figure): number[] => {
      const { width, height, pixels } = rasterOf(drawn);
      const columns = Array.from({ length: width }, (_, x) => x);
      return columns.filter((x) =>
        Array.from({ length: height }, (_, y) => pixels[3 * (y * width + x)]!).some((value) => value < 128),
      );
    };
    expect(Math.min(...inked(text("start", "H")))).toBeGreaterThanOrEqual(40);
    expect(Math.max(...inked(text("end", "H")))).toBeLessThan(40);
    expect(rasterOf(text("start", "漢")).pixels).toEqual(rasterOf(text("start", "?")).pixels);
    expect(inked(text("start", " "))).toEqual([]);
  });

  it("is a PNG whose rows are those pixels", () => {
    const raster = rasterOf(figure({ kind: "text", at: [4, 14], anchor: "start", text: "8.2", fill: "#123456" }));
    const file = Buffer.from(pngBytes(raster));
    expect(file.subarray(0, 8).toString("latin1")).toBe("\x89PNG\r\n\x1a\n");
    expect([file.readUInt32BE(16), file.readUInt32BE(20)]).toEqual([80, 40]);
    const length = file.readUInt32BE(33);
    expect(file.subarray(37, 41).toString()).toBe("IDAT");
    const rows = inflateSync(file.subarray(41, 41 + length));
    expect(rows.length).toBe(40 * (1 + 3 * 80));
    expect([...rows.subarray(20 * 241 + 1, 21 * 241)]).toEqual([...raster.pixels.subarray(20 * 240, 21 * 240)]);
    expect(file.subarray(-8, -4).toString()).toBe("IEND");
  });
});
