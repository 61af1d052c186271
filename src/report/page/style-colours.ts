/** Colours of pages as variables, so that charts, print and dark mode read the same ones. */
import { css } from "./css.js";
import { armTones, pageTone, toneVariables } from "./palette.js";

const light = css`
  color-scheme: light;
  --page: ${pageTone.light};
  --surface: #ffffff;
  --ink: #1a1f26;
  --muted: #5a636e;
  --rule: #e2e4e7;
  --grid: #eceef0;
  --accent: #0062aa;
  --code: #f2f3f4;
  --cue: #c9ccd0;
  --beyond: #f1f1ee;
  --tie: #8f8ac2;
  --tie-all: #c9b98f;
  --l1: #2f74b5;
  --l2: #7fb0dc;
  --l3: #c4dcf0;
  --l4: #ebebe8;
  --l5: #f6d0a8;
  --l6: #e88b42;
  --l7: #ad4806;
  --s1: #d9e6f2;
  --s2: #b7d1e9;
  --s3: #90b9df;
  --s4: #659fd2;
  --s5: #3f83be;
  --s6: #22639d;
  --s7: #0b3d70;
`;

const dark = css`
  color-scheme: dark;
  --page: ${pageTone.dark};
  --surface: #1b1f24;
  --ink: #e8ebef;
  --muted: #a0a9b4;
  --rule: #30363d;
  --grid: #262b31;
  --accent: #6cb8f2;
  --code: #20252b;
  --cue: #4a525b;
  --beyond: #1c2025;
  --tie: #6a659c;
  --tie-all: #6e6346;
  --l1: #78b9f2;
  --l2: #3c79b1;
  --l3: #2d4b66;
  --l4: #30353b;
  --l5: #6b4a2b;
  --l6: #c6762f;
  --l7: #ffb469;
  --s1: #22344a;
  --s2: #2a4a6c;
  --s3: #34628f;
  --s4: #427db3;
  --s5: #5f99d0;
  --s6: #8bbae8;
  --s7: #c6e0f9;
`;

/** A rule for each mode: light, and dark on screens that ask for it. Print stays light. */
export function colourModes(): string {
  const [lightTones, darkTones] = [toneVariables("light"), toneVariables("dark")];
  return `:root {${light}\n  ${lightTones}\n}
@media screen and (prefers-color-scheme: dark) { :root:not([data-print]) {${dark}\n  ${darkTones}\n} }`;
}

/** Rules that give what stands for an arm the arm's colour. */
export const swatchRules = armTones.map((_, index) => `.tone-${index} { --swatch: var(--arm-${index}); }`).join("\n");
