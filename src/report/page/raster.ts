/**
 * Figures as pixels: bands, lines and text with smooth edges. Every shape becomes a mask of coverages, which is blended
 * in its colour. Pure.
 */
import { at } from "../../base/at.js";
import type { Figure, Shape } from "./figure-shapes.js";
import { glyphCharacters, glyphData, glyphMetrics, glyphSize } from "./figure-font.js";
import { textSize } from "./figure-shapes.js";

/** Pixels of the picture for each pixel of the figure. */
const scale = glyphSize / textSize;
/** Lines of sight through each row of pixels. */
const samples = 4;

/** An image of 8 bits for red, green and blue [height, width, 3]. */
export interface Raster {
  readonly width: number;
  readonly height: number;
  readonly pixels: Uint8Array;
}

type Point = readonly [x: number, y: number];

/** The figure on white. */
export function rasterOf(figure: Figure): Raster {
  const [width, height] = [Math.round(figure.width * scale), Math.round(figure.height * scale)];
  const image = { width, height, pixels: new Uint8Array(width * height * 3).fill(255) };
  const frame = figure.frame.map((edge) => edge * scale) as unknown as Figure["frame"];
  const mask = new Mask(width, height);
  for (const shape of figure.shapes) drawShape({ image, mask }, shape, frame);
  return image;
}

/** What is drawn on, and an empty mask of its size, which is empty again after each shape. */
interface Canvas {
  readonly image: Raster;
  readonly mask: Mask;
}

function drawShape({ image, mask }: Canvas, shape: Shape, frame: Figure["frame"]): void {
  switch (shape.kind) {
    case "band":
      mask.fill(shape.points.map(scaled));
      mask.clip(frame);
      return mask.blend(image, shape.fill, shape.opacity);
    case "line":
      for (const piece of dashed(
        shape.points.map(scaled),
        shape.dash.map((length) => length * scale),
      ))
        mask.stroke(piece, (shape.width * scale) / 2);
      if (shape.clipped) mask.clip(frame);
      return mask.blend(image, shape.stroke, 1);
    case "text":
      drawText(mask, shape);
      return mask.blend(image, shape.fill, 1);
  }
}

const scaled = ([x, y]: Point): Point => [x * scale, y * scale];

/** The pieces of a line that a pattern of lengths, drawn and left out in turn, leaves. */
export function dashed(points: readonly Point[], pattern: readonly number[]): Point[][] {
  if (pattern.length === 0) return [[...points]];
  const pieces: Point[][] = [];
  let index = 0;
  let left = at(pattern, 0);
  let piece: Point[] = [at(points, 0)];
  for (let i = 1; i < points.length; i++) {
    let from = at(points, i - 1);
    const to = at(points, i);
    for (let length = distance(from, to); length > 0; length = distance(from, to)) {
      const part = Math.min(1, left / length);
      const next: Point = part === 1 ? to : [from[0] + part * (to[0] - from[0]), from[1] + part * (to[1] - from[1])];
      left -= Math.min(left, length);
      piece.push(next);
      if (left <= 1e-9) {
        if (index % 2 === 0) pieces.push(piece);
        index++;
        left = at(pattern, index % pattern.length);
        piece = [next];
      }
      from = next;
    }
  }
  if (index % 2 === 0 && piece.length > 1) pieces.push(piece);
  return pieces;
}

const distance = (a: Point, b: Point): number => Math.hypot(b[0] - a[0], b[1] - a[1]);

/** How much of each pixel a shape covers, from 0 to 1. Only the rectangle that was touched is looked at. */
class Mask {
  private readonly cover: Float32Array;
  private left = Infinity;
  private top = Infinity;
  /** The first column and row behind the rectangle. */
  private right = 0;
  private bottom = 0;

  constructor(
    private readonly width: number,
    private readonly height: number,
  ) {
    this.cover = new Float32Array(width * height);
  }

  /** Adds a pixel; what is covered already counts once. */
  add(x: number, y: number, value: number): void {
    if (x < 0 || y < 0 || x >= this.width || y >= this.height) return;
    this.left = Math.min(this.left, x);
    this.top = Math.min(this.top, y);
    this.right = Math.max(this.right, x + 1);
    this.bottom = Math.max(this.bottom, y + 1);
    const index = y * this.width + x;
    this.cover[index] = Math.max(at(this.cover, index), value);
  }

  /** Adds the inside of a polygon, by the rule of even and odd. */
  fill(points: readonly Point[]): void {
    const ys = points.map(([, y]) => y);
    const first = Math.max(0, Math.floor(Math.min(...ys)));
    const last = Math.min(this.height - 1, Math.ceil(Math.max(...ys)));
    const row = new Float32Array(this.width);
    for (let y = first; y <= last; y++) {
      row.fill(0);
      for (let sample = 0; sample < samples; sample++)
        addSpans(row, crossings(points, y + (sample + 0.5) / samples), 1 / samples);
      for (let x = 0; x < this.width; x++) if (at(row, x) > 0) this.add(x, y, at(row, x));
    }
  }

  /** Adds a line of some half width, with round corners. */
  stroke(points: readonly Point[], half: number): void {
    for (let i = 1; i < points.length; i++) {
      const [a, b] = [at(points, i - 1), at(points, i)];
      const length = distance(a, b);
      if (length === 0) continue;
      const [nx, ny] = [(-half * (b[1] - a[1])) / length, (half * (b[0] - a[0])) / length];
      this.fill([
        [a[0] + nx, a[1] + ny],
        [b[0] + nx, b[1] + ny],
        [b[0] - nx, b[1] - ny],
        [a[0] - nx, a[1] - ny],
      ]);
    }
    for (const [x, y] of points.slice(1, -1)) {
      this.fill(
        Array.from({ length: 12 }, (_, i): Point => {
          const angle = (i * Math.PI) / 6;
          return [x + half * Math.cos(angle), y + half * Math.sin(angle)];
        }),
      );
    }
  }

  /** Takes away what is outside of the frame. */
  clip([left, top, right, bottom]: Figure["frame"]): void {
    for (let y = this.top; y < this.bottom; y++)
      for (let x = this.left; x < this.right; x++)
        if (x < left || x >= right || y < top || y >= bottom) this.cover[y * this.width + x] = 0;
  }

  /** Lays the colour over the image, and empties the mask. */
  blend({ pixels }: Raster, colour: string, opacity: number): void {
    const channels = [1, 3, 5].map((start) => Number.parseInt(colour.slice(start, start + 2), 16));
    for (let y = this.top; y < this.bottom; y++)
      for (let i = y * this.width + this.left; i < y * this.width + this.right; i++) {
        const share = at(this.cover, i) * opacity;
        this.cover[i] = 0;
        if (share === 0) continue;
        for (const [channel, value] of channels.entries()) {
          const index = 3 * i + channel;
          pixels[index] = Math.round(at(pixels, index) * (1 - share) + value * share);
        }
      }
    [this.left, this.top, this.right, this.bottom] = [Infinity, Infinity, 0, 0];
  }
}

/** Where a polygon's edges cross a horizontal line, from left to right. */
function crossings(points: readonly Point[], y: number): number[] {
  const xs: number[] = [];
  for (let i = 0; i < points.length; i++) {
    const [a, b] = [at(points, i), at(points, (i + 1) % points.length)];
    if (a[1] <= y !== b[1] <= y) xs.push(a[0] + ((y - a[1]) / (b[1] - a[1])) * (b[0] - a[0]));
  }
  return xs.sort((p, q) => p - q);
}

/** Adds what lies between each two crossings to a row; a pixel that is covered in part gets its part. */
function addSpans(row: Float32Array, xs: readonly number[], weight: number): void {
  for (let i = 0; i + 1 < xs.length; i += 2) {
    const [from, to] = [Math.max(0, at(xs, i)), Math.min(row.length, at(xs, i + 1))];
    for (let x = Math.floor(from); x < to; x++)
      row[x] = Math.min(1, at(row, x) + weight * (Math.min(x + 1, to) - Math.max(x, from)));
  }
}

interface Glyph {
  readonly metrics: readonly [advance: number, left: number, top: number, width: number, height: number];
  /** Index of its first coverage. */
  readonly start: number;
}

const glyphs = new Map<string, Glyph>();
let coverages = new Uint8Array(0);

/** Unpacks the glyphs at their first use. */
function loadGlyphs(): void {
  const packed = Uint8Array.from(atob(glyphData), (character) => character.charCodeAt(0));
  coverages = Uint8Array.from({ length: 2 * packed.length }, (_, i) => {
    const byte = at(packed, i >> 1);
    return i % 2 === 0 ? byte >> 4 : byte & 15;
  });
  let start = 0;
  for (const [i, character] of [...glyphCharacters].entries()) {
    const metrics = at(glyphMetrics, i);
    glyphs.set(character, { metrics, start });
    start += metrics[3] * metrics[4];
  }
}

function drawText(mask: Mask, { at: [x, y], anchor, text }: Extract<Shape, { readonly kind: "text" }>): void {
  if (glyphs.size === 0) loadGlyphs();
  // A character that there is no glyph for is shown as a question mark.
  const line = [...text].map((character) => glyphs.get(character) ?? glyphs.get("?"));
  const width = line.reduce((sum, glyph) => sum + (glyph?.metrics[0] ?? 0), 0);
  let pen = x * scale - (anchor === "start" ? 0 : anchor === "middle" ? width / 2 : width);
  for (const glyph of line) {
    if (glyph === undefined) continue;
    const [advance, left, top, boxWidth, boxHeight] = glyph.metrics;
    for (let i = 0; i < boxWidth * boxHeight; i++) {
      const [column, row] = [i % boxWidth, Math.floor(i / boxWidth)];
      const value = at(coverages, glyph.start + i) / 15;
      if (value > 0) mask.add(Math.round(pen) + left + column, Math.round(y * scale) + top + row, value);
    }
    pen += advance;
  }
}
