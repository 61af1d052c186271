/**
 * Colours of the arms, after Okabe and Ito. People with any common colour vision can tell them apart, and each has a
 * contrast of at least 3:1 against the page in both modes (test/report/page/palette.test.ts measures both). The
 * continued dense model, with which all are compared, is neutral; the others are hues.
 */
import type { ArmResult } from "../../model/results/result.js";

/** A colour in the page's two modes, as `#rrggbb`. */
interface Tone {
  readonly light: string;
  readonly dark: string;
}

/** The page's background. */
export const pageTone: Tone = { light: "#fcfcfb", dark: "#15181c" };

/**
 * CSS variable `--arm-<index>`. The first is for dense arms, the second for arms from scratch, the rest for upcycled
 * ones.
 */
export const armTones: readonly Tone[] = [
  { light: "#33383f", dark: "#d5dae0" },
  { light: "#a8467d", dark: "#ca5fa0" },
  { light: "#0068b4", dark: "#56aef0" },
  { light: "#d2540a", dark: "#f08a3c" },
  { light: "#008a63", dark: "#2fc095" },
  { light: "#8a6d00", dark: "#e3c341" },
];

/** Both ends of the scale for a quantity that has an order: one hue, its darkness the order. */
export const rampTones: readonly [low: Tone, high: Tone] = [
  { light: "#4f93cf", dark: "#47749f" },
  { light: "#0a1f44", dark: "#e3f0fd" },
];

const firstUpcycled = 2;

/** Index into `armTones` per arm, in the order given; more arms than colours share them, and dashes tell them apart. */
export function toneIndices(arms: readonly ArmResult[]): readonly number[] {
  let upcycledArms = 0;
  return arms.map((arm) => {
    if (arm.kind === "dense") return 0;
    if (arm.kind === "scratch") return 1;
    return firstUpcycled + (upcycledArms++ % (armTones.length - firstUpcycled));
  });
}

/** The colours of one mode as declarations of the variables `--arm-<index>`, `--ramp-low` and `--ramp-high`. */
export function toneVariables(mode: keyof Tone): string {
  const [low, high] = rampTones;
  const arms = armTones.map((tone, index) => `--arm-${index}: ${tone[mode]};`);
  return [...arms, `--ramp-low: ${low[mode]};`, `--ramp-high: ${high[mode]};`].join(" ");
}
