/**
 * Colours of the arms, after Okabe and Ito: told apart with any common colour vision, at least 3:1 against the page in
 * both modes (test/report/palette.test.ts measures both). Continued dense is the neutral yardstick; the others are
 * hues.
 */
import type { ArmResult } from "../../model/results/result.js";

interface Tone {
  readonly light: string;
  readonly dark: string;
}

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

const firstUpcycled = 2;

/** Index into `armTones` per arm, in the order given; more arms than colours share them, and dashes tell them apart. */
export function toneIndices(arms: readonly ArmResult[]): readonly number[] {
  let upcycled = 0;
  return arms.map((arm) => {
    if (arm.kind === "dense") return 0;
    if (arm.kind === "scratch") return 1;
    return firstUpcycled + (upcycled++ % (armTones.length - firstUpcycled));
  });
}

export function toneVariables(mode: keyof Tone): string {
  return armTones.map((tone, index) => `--arm-${index}: ${tone[mode]};`).join(" ");
}
