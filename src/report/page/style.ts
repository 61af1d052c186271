/**
 * The style sheet that all pages share. Colours are variables, so that charts, print and dark mode read the same ones.
 * Over 400 lines, because CSS has a line for every declaration.
 */
import { css } from "./css.js";
import { armTones, pageTone, toneVariables } from "./palette.js";
import { reportRules } from "./style-reports.js";

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

const base = css`
  * {
    box-sizing: border-box;
  }
  html {
    -webkit-text-size-adjust: 100%;
  }
  body {
    margin: 0;
    background: var(--page);
    color: var(--ink);
    overflow-wrap: break-word;
    font:
      1rem/1.55 -apple-system,
      "Segoe UI",
      Roboto,
      "Helvetica Neue",
      Arial,
      "Noto Sans",
      system-ui,
      sans-serif;
  }
  main,
  footer {
    max-width: 70rem;
    margin: 0 auto;
    padding: 0 clamp(1rem, 4vw, 2.5rem);
  }
  header {
    padding: clamp(2rem, 6vw, 4.5rem) 0 1.75rem;
  }
  .kicker {
    margin: 0 0 0.6rem;
    font-size: 0.78rem;
    font-weight: 600;
    letter-spacing: 0.09em;
    text-transform: uppercase;
    color: var(--accent);
  }
  h1 {
    margin: 0;
    max-width: 30ch;
    font-size: clamp(1.75rem, 4.6vw, 2.75rem);
    line-height: 1.12;
    letter-spacing: -0.022em;
    font-weight: 680;
    text-wrap: balance;
  }
  h1.long {
    max-width: 46ch;
    font-size: clamp(1.3rem, 3vw, 1.75rem);
    line-height: 1.25;
    letter-spacing: -0.012em;
  }
  .asked {
    margin: 0 0 0.5rem;
    max-width: 62ch;
    color: var(--muted);
    font-size: 1.08rem;
  }
  .answer {
    margin: 1.4rem 0 0;
    max-width: 62ch;
    font-size: clamp(1.08rem, 2vw, 1.28rem);
    line-height: 1.5;
    text-wrap: pretty;
  }
  .because {
    max-width: 74ch;
    margin: 1rem 0 0;
    color: var(--muted);
    font-size: 0.95rem;
    text-wrap: pretty;
  }
  ul.because {
    padding-left: 1.1rem;
  }
  .because:empty {
    display: none;
  }
  .facts {
    display: flex;
    flex-wrap: wrap;
    row-gap: 0.1rem;
    margin: 1.2rem 0 0;
    color: var(--muted);
    font-size: 0.92rem;
  }
  .facts span {
    margin: 0 0.3em;
  }
  .facts > :not(span) {
    white-space: nowrap;
    font-style: normal;
  }
  section {
    margin: 0 0 3.25rem;
  }
  h2 {
    margin: 0 0 1rem;
    padding-top: 1.1rem;
    border-top: 2px solid var(--ink);
    font-size: 1.32rem;
    line-height: 1.25;
    letter-spacing: -0.012em;
    font-weight: 660;
  }
  h3 {
    margin: 2rem 0 0.4rem;
    font-size: 1.02rem;
    line-height: 1.35;
    font-weight: 640;
  }
  h2 + h3,
  .columns h3 {
    margin-top: 0;
  }
  p {
    margin: 0 0 1rem;
  }
  .lead,
  .note {
    max-width: 74ch;
  }
  .muted,
  .note {
    color: var(--muted);
  }
  .note,
  .small {
    font-size: 0.875rem;
  }
  code,
  pre {
    font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace;
    font-size: 0.86em;
  }
  :focus-visible {
    outline: 2px solid var(--accent);
    outline-offset: 2px;
    border-radius: 3px;
  }
  footer {
    padding-top: 1.2rem;
    padding-bottom: 3rem;
    color: var(--muted);
    font-size: 0.85rem;
  }
  html:not(.with-script) .scripted {
    display: none !important;
  }
  .swatch {
    display: inline-block;
    width: 0.72em;
    height: 0.72em;
    margin-right: 0.5em;
    border-radius: 50%;
    background: var(--swatch, var(--muted));
  }
`;

const swatches = armTones.map((_, index) => `.tone-${index} { --swatch: var(--arm-${index}); }`).join("\n");

const tiles = css`
  .tiles {
    display: grid;
    grid-template-columns: repeat(auto-fit, minmax(9.6rem, 1fr));
    gap: 1px;
    margin: 0 0 0.6rem;
    background: var(--surface);
    border: 1px solid var(--rule);
    border-radius: 10px;
    overflow: hidden;
  }
  .tiles > div {
    padding: 0.95rem 1rem 1rem;
    outline: 1px solid var(--rule);
  }
  .tiles dt {
    font-size: 0.84rem;
    line-height: 1.3;
    color: var(--muted);
  }
  .tiles dd {
    margin: 0.3rem 0 0;
  }
  .tiles b {
    display: block;
    font-size: 1.62rem;
    line-height: 1.2;
    font-weight: 620;
    letter-spacing: -0.02em;
    font-variant-numeric: tabular-nums;
  }
  .tiles dd span {
    display: block;
    font-size: 0.8rem;
    line-height: 1.35;
    color: var(--muted);
    font-variant-numeric: tabular-nums;
  }
  .findings {
    margin: 0;
    padding: 0;
    list-style: none;
  }
  .answer + .findings {
    margin-top: 1.5rem;
  }
  .facts-list + h3 {
    margin-top: 1.5rem;
  }
  .findings b {
    font-weight: 600;
  }
  .findings li {
    break-inside: avoid;
    margin: 0 0 0.7rem;
    padding: 0 0 0.75rem;
    border-bottom: 1px solid var(--rule);
    font-size: 0.95rem;
    line-height: 1.5;
  }
  @media (min-width: 56rem) {
    .findings {
      columns: 2;
      column-gap: 3rem;
    }
  }
`;

const tables = css`
  .frame {
    margin: 0 0 1.5rem;
    overflow-x: auto;
    background:
      linear-gradient(to right, var(--page) 40%, transparent) left / 2.5rem 100% no-repeat local,
      linear-gradient(to left, var(--page) 40%, transparent) right / 2.5rem 100% no-repeat local,
      linear-gradient(to right, var(--cue), transparent) left / 0.9rem 100% no-repeat scroll,
      linear-gradient(to left, var(--cue), transparent) right / 0.9rem 100% no-repeat scroll;
  }
  table {
    width: 100%;
    border-collapse: collapse;
    font-size: 0.9rem;
    line-height: 1.4;
    font-variant-numeric: tabular-nums;
  }
  caption,
  .caption {
    margin: 0;
    padding: 0 0 0.5rem;
    text-align: left;
    color: var(--muted);
    font-size: 0.875rem;
  }
  th,
  td {
    padding: 0.55rem 0.9rem 0.55rem 0;
    text-align: left;
    vertical-align: top;
    border-bottom: 1px solid var(--rule);
  }
  th:last-child,
  td:last-child {
    padding-right: 0;
  }
  thead th {
    vertical-align: bottom;
    font-weight: 600;
    font-size: 0.82rem;
    color: var(--muted);
    border-bottom-color: var(--ink);
  }
  tbody th {
    font-weight: 560;
    white-space: nowrap;
  }
  tbody th code {
    color: var(--muted);
    font-weight: 400;
  }
  td.number,
  th.number {
    text-align: right;
  }
  thead th.number {
    min-width: 5.2rem;
  }
  td.number {
    white-space: nowrap;
  }
  .columns {
    display: grid;
    grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 1fr));
    gap: 1.5rem 2.5rem;
  }
  .facts-list {
    margin: 0;
    font-size: 0.93rem;
  }
  .facts-list div {
    padding: 0.45rem 0;
    border-bottom: 1px solid var(--rule);
  }
  .facts-list dt {
    font-size: 0.8rem;
    color: var(--muted);
  }
  .facts-list dd {
    margin: 0;
  }
  .commands {
    position: relative;
  }
  pre {
    margin: 0;
    padding: 1rem 1.1rem;
    overflow-x: auto;
    background: var(--code);
    border: 1px solid var(--rule);
    border-radius: 8px;
    line-height: 1.7;
  }
  .commands button {
    position: absolute;
    top: 0.5rem;
    right: 0.5rem;
  }
  button,
  select {
    padding: 0.3rem 0.7rem;
    font: inherit;
    font-size: 0.84rem;
    color: var(--ink);
    background: var(--surface);
    border: 1px solid var(--rule);
    border-radius: 6px;
    cursor: pointer;
  }
  button:hover,
  select:hover {
    border-color: var(--muted);
  }
`;

const charts = css`
  .controls {
    display: flex;
    flex-wrap: wrap;
    align-items: center;
    gap: 0.6rem 1.5rem;
    margin: 0 0 1.1rem;
    font-size: 0.875rem;
  }
  .controls label {
    cursor: pointer;
  }
  .toggle {
    display: flex;
    align-items: center;
    margin: 0;
    padding: 0;
    border: 0;
  }
  .toggle legend {
    float: left;
    margin-right: 0.6rem;
    padding: 0;
    color: var(--muted);
  }
  .toggle input {
    position: absolute;
    opacity: 0;
    pointer-events: none;
  }
  .toggle span {
    display: block;
    padding: 0.22rem 0.75rem;
    background: var(--surface);
    border: 1px solid var(--rule);
  }
  .toggle label + label span {
    margin-left: -1px;
    border-radius: 0 6px 6px 0;
  }
  .toggle label:first-of-type span {
    border-radius: 6px 0 0 6px;
  }
  .toggle input:checked + span {
    position: relative;
    color: var(--page);
    background: var(--ink);
    border-color: var(--ink);
  }
  .toggle input:focus-visible + span {
    outline: 2px solid var(--accent);
    outline-offset: 2px;
  }
  .controls input[type="checkbox"] {
    margin: 0 0.35rem 0 0;
    vertical-align: -0.08em;
    accent-color: var(--accent);
  }
  .charts {
    display: grid;
    grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr));
    gap: 1.75rem 2.25rem;
    margin-bottom: 1rem;
  }
  figure {
    margin: 0;
    min-width: 0;
  }
  figcaption {
    margin-bottom: 0.5rem;
    font-size: 0.93rem;
  }
  figcaption b {
    font-weight: 600;
  }
  .plot {
    min-height: 270px;
  }
  .plot .uplot {
    font-family: inherit;
  }
  .plot .u-cursor-x {
    border-right: 1px solid var(--muted);
  }
  .plot .u-select {
    background: color-mix(in srgb, var(--accent) 16%, transparent);
  }
  .scale {
    display: flex;
    flex-wrap: wrap;
    gap: 0.25rem 0.95rem;
    margin: 0 0 1.2rem;
    padding: 0;
    list-style: none;
    font-size: 0.8rem;
    color: var(--muted);
    font-variant-numeric: tabular-nums;
  }
  .scale .cell {
    display: inline-block;
    width: 1.05rem;
    height: 0.8rem;
    margin-right: 0.4rem;
    vertical-align: -0.06rem;
  }
  .readout {
    display: flex;
    flex-wrap: wrap;
    gap: 0.15rem 1.1rem;
    margin: 0.35rem 0 0;
    padding: 0 0 0 0.2rem;
    list-style: none;
    font-size: 0.82rem;
    line-height: 1.5;
    font-variant-numeric: tabular-nums;
  }
  .readout li:first-child {
    flex-basis: 100%;
    color: var(--muted);
  }
  .readout b {
    margin-left: 0.4em;
    font-weight: 620;
  }
`;

/** Print is light, whatever the screen is: the script sets `data-print` while it redraws the charts for paper. */
const print = css`
  @media print {
    body {
      font-size: 9.5pt;
      background: none;
    }
    main,
    footer {
      max-width: none;
      padding: 0;
    }
    header {
      padding-top: 0;
    }
    section {
      margin-bottom: 1.5rem;
    }
    .controls,
    button {
      display: none !important;
    }
    figure,
    tr,
    .frame,
    .tiles,
    .commands {
      break-inside: avoid;
    }
    h2,
    h3,
    .lead {
      break-after: avoid;
    }
    .tiles {
      grid-template-columns: repeat(3, 1fr);
    }
    .findings {
      columns: 2;
      column-gap: 2rem;
    }
    .charts {
      grid-template-columns: 1fr 1fr;
      gap: 1rem;
    }
    .frame {
      overflow: visible;
    }
    table {
      font-size: 8.5pt;
    }
    tbody th {
      white-space: normal;
    }
    .swatch {
      print-color-adjust: exact;
      -webkit-print-color-adjust: exact;
    }
    pre {
      white-space: pre-wrap;
    }
  }
`;

/** A rule for each mode: light, and dark on screens that ask for it. Print stays light. */
function modes(): string {
  const [lightTones, darkTones] = [toneVariables("light"), toneVariables("dark")];
  return `:root {${light}\n  ${lightTones}\n}
@media screen and (prefers-color-scheme: dark) { :root:not([data-print]) {${dark}\n  ${darkTones}\n} }`;
}

/** The style sheet that all pages share. */
export function pageStyle(): string {
  return [modes(), base, swatches, tiles, tables, charts, reportRules, print].join("\n");
}
