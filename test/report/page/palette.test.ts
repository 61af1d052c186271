import { describe, expect, it } from "vitest";
import { armTones, pageTone, toneIndices } from "../../../src/report/page/palette.js";
import { pageStyle } from "../../../src/report/page/style.js";
import { study } from "../fixture.js";

type Rgb = readonly [number, number, number];

function linear(hex: string): Rgb {
  const channel = (at: number): number => {
    const value = parseInt(hex.slice(at, at + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  };
  return [channel(1), channel(3), channel(5)];
}

function luminance([red, green, blue]: Rgb): number {
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

/** Matrices on linear RGB by Machado, Oliveira and Fernandes 2009, severity 1. */
const deficiencies: Readonly<Record<string, readonly Rgb[]>> = {
  normal: [
    [1, 0, 0],
    [0, 1, 0],
    [0, 0, 1],
  ],
  protan: [
    [0.152286, 1.052583, -0.204868],
    [0.114503, 0.786281, 0.099216],
    [-0.003882, -0.048116, 1.051998],
  ],
  deutan: [
    [0.367322, 0.860646, -0.227968],
    [0.280085, 0.672501, 0.047413],
    [-0.01182, 0.04294, 0.968881],
  ],
  tritan: [
    [1.255528, -0.076749, -0.178779],
    [-0.078411, 0.930809, 0.147602],
    [0.004733, 0.691367, 0.3039],
  ],
};

/** The colour that an eye with this deficiency sees, in OKLab. */
function perceived(hex: string, matrix: readonly Rgb[]): Rgb {
  const rgb = linear(hex);
  const [r, g, b] = matrix.map((row) =>
    Math.max(0, row[0] * rgb[0] + row[1] * rgb[1] + row[2] * rgb[2]),
  ) as unknown as Rgb;
  const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  return [
    0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s,
    1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s,
    0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s,
  ];
}

describe.each(["light", "dark"] as const)("arm colours in %s mode", (mode) => {
  it("stand out from the page by 3:1", () => {
    const page = luminance(linear(pageTone[mode]));
    for (const tone of armTones) {
      const ink = luminance(linear(tone[mode]));
      const contrast = (Math.max(page, ink) + 0.05) / (Math.min(page, ink) + 0.05);
      expect(contrast, tone[mode]).toBeGreaterThan(3);
    }
  });

  // The first four serve the standard study: dense, scratch, coarse, fine.
  it.each(Object.entries(deficiencies))("are told apart with %s vision", (_, matrix) => {
    const colours = armTones.slice(0, 4).map((tone) => ({ hex: tone[mode], lab: perceived(tone[mode], matrix) }));
    for (const [
      i,
      {
        hex,
        lab: [l, a, b],
      },
    ] of colours.entries()) {
      for (const other of colours.slice(0, i)) {
        const distance = Math.hypot(l - other.lab[0], a - other.lab[1], b - other.lab[2]);
        expect(distance, `${hex} ${other.hex}`).toBeGreaterThan(0.08);
      }
    }
  });
});

describe.each([0, 1])("colours from little to much in mode %i (light, dark)", (mode) => {
  const colours = [1, 2, 3, 4, 5, 6, 7].map(
    (step) => [...pageStyle().matchAll(new RegExp(`--s${step}: (#[0-9a-f]{6});`, "g"))][mode]![1]!,
  );

  it.each(Object.entries(deficiencies))("differ by their lightness alone with %s vision", (_, matrix) => {
    const lightness = colours.map((hex) => perceived(hex, matrix)[0]);
    const steps = lightness.slice(1).map((value, i) => (value - lightness[i]!) * (mode === 0 ? -1 : 1));
    expect(Math.min(...steps)).toBeGreaterThan(0.05);
  });
});

it("gives every upcycled arm its own hue while there are enough", () => {
  expect(toneIndices(study().arms)).toEqual([0, 2, 3, 1]);
});
