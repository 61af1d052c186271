/** Rules of the parts that only some reports have; each that could touch another page names its report. */
import { css } from "./css.js";

const maps = css`
  .maps {
    display: grid;
    grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr));
    gap: 1.6rem 2.25rem;
  }
  .map {
    min-width: 0;
  }
  .map-title {
    margin: 0 0 0.4rem;
    font-size: 0.93rem;
  }
  .heat-svg {
    display: block;
    width: 100%;
    max-width: 36rem;
    height: auto;
    font-variant-numeric: tabular-nums;
  }
  .cell {
    border-radius: 2px;
    print-color-adjust: exact;
    -webkit-print-color-adjust: exact;
  }
  .l0 {
    background: var(--page);
    box-shadow: inset 0 0 0 1.5px var(--ink);
  }
`;

const classes = ["l", "s"]
  .flatMap((scale) => [1, 2, 3, 4, 5, 6, 7].map((step) => `${scale}${step}`))
  .map((tone) => `.${tone} { background: var(--${tone}); }`)
  .join(" ");

const sliders = css`
  .slider label {
    display: flex;
    flex: 1 1 14rem;
    gap: 0.6rem;
    align-items: center;
  }
  .slider input {
    flex: 1 1 8rem;
    min-width: 4rem;
    accent-color: var(--accent);
  }
  .slider output {
    min-width: 6em;
    font-variant-numeric: tabular-nums;
  }
  .sliders {
    display: grid;
    grid-template-columns: repeat(auto-fit, minmax(min(100%, 15rem), 1fr));
    gap: 0.8rem 2rem;
    margin: 0 0 0.9rem;
    padding: 1rem 1.1rem;
    background: var(--surface);
    border: 1px solid var(--rule);
    border-radius: 10px;
  }
  .sliders label {
    display: block;
    font-size: 0.84rem;
    color: var(--muted);
  }
  .sliders output {
    float: right;
    margin-left: 0.6em;
    color: var(--ink);
    font-weight: 600;
    font-variant-numeric: tabular-nums;
  }
  .sliders input {
    display: block;
    width: 100%;
    margin: 0.3rem 0 0;
    accent-color: var(--accent);
  }
  .hidden {
    position: absolute;
    width: 1px;
    height: 1px;
    margin: -1px;
    overflow: hidden;
    clip-path: inset(50%);
    white-space: nowrap;
  }
  @media print {
    .controls,
    .sliders,
    .files {
      display: none !important;
    }
  }
`;

const charts = css`
  figcaption {
    display: flex;
    flex-wrap: wrap;
    justify-content: space-between;
    gap: 0.3rem 1rem;
  }
  .files {
    display: flex;
    gap: 0.3rem;
  }
  .files button {
    padding: 0.05rem 0.45rem;
    font-size: 0.75rem;
    color: var(--muted);
  }
  .heat {
    margin: 0 0 1.4rem;
  }
  .heat-frame {
    overflow: hidden;
  }
  .heat canvas {
    display: block;
    cursor: crosshair;
  }
  svg.view {
    display: block;
    width: 100%;
    max-width: 34rem;
    height: auto;
    font-variant-numeric: tabular-nums;
  }
`;

const laws = css`
  .report-law .facts em,
  .report-law .facts-list dd {
    overflow-wrap: anywhere;
    white-space: normal;
  }
  .formula {
    margin: 1rem 0 0;
    padding: 0.3rem 0;
    overflow-x: auto;
    white-space: nowrap;
  }
  .report-law #parameters td:nth-last-child(2) {
    min-width: 13rem;
  }
  @media (max-width: 30rem) {
    .report-law .tiles b {
      font-size: 1.15rem;
      overflow-wrap: normal;
    }
  }
`;

const plans = css`
  #again {
    margin-bottom: 0.5rem;
  }
  #again pre {
    padding-right: 5rem;
    white-space: pre-wrap;
    overflow-wrap: anywhere;
  }
  .kicker span {
    text-transform: none;
    letter-spacing: 0;
  }
  .views {
    display: grid;
    grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr));
    gap: 2rem 2.5rem;
  }
  .keys {
    display: flex;
    flex-wrap: wrap;
    gap: 0.2rem 1.1rem;
    margin: 0.3rem 0 0;
    padding: 0;
    list-style: none;
    font-size: 0.82rem;
  }
  .key {
    display: inline-block;
    width: 0.8em;
    height: 0.8em;
    margin-right: 0.45em;
    border: 1px solid var(--muted);
    border-radius: 2px;
  }
  .report details {
    margin: 0 0 1.5rem;
  }
  .report summary {
    cursor: pointer;
    color: var(--accent);
  }
  #problem {
    min-height: 1.5em;
    margin: 0.3rem 0 0;
    font-size: 0.9rem;
    color: var(--arm-3);
  }
  .stale [data-live],
  .stale figure {
    opacity: 0.4;
  }
  .report .facts-list b {
    font-weight: 600;
  }
  .report-plan td {
    min-width: 6.5rem;
  }
  .report-plan td.number {
    min-width: 2.6rem;
  }
  .report-plan tbody th {
    min-width: 5.5rem;
    white-space: normal;
  }
  .report h2 + div > h3:first-child,
  .report h2 + [data-live] > h3 {
    margin-top: 0;
  }
  @media print {
    #problem {
      display: none;
    }
  }
`;

const evaluations = css`
  .better {
    font-weight: 600;
  }
  .worse {
    font-weight: 600;
    text-decoration: underline;
  }
  .level-1 {
    padding-left: 1rem;
    font-weight: 400;
  }
  .level-2,
  .level-3 {
    padding-left: 2rem;
    font-weight: 400;
  }
  .right {
    color: var(--accent);
    font-size: 0.8rem;
  }
  .interval {
    display: block;
    width: 9rem;
    height: 1.1rem;
    fill: var(--muted);
    stroke: var(--muted);
  }
  .interval .zero {
    stroke: var(--cue);
  }
  .interval.changed {
    fill: var(--accent);
    stroke: var(--accent);
  }
  .report details pre {
    overflow-wrap: anywhere;
    white-space: pre-wrap;
  }
`;

const experts = css`
  .matrices {
    display: grid;
    grid-template-columns: repeat(auto-fill, minmax(min(100%, 14rem), 1fr));
    gap: 1.4rem 1.8rem;
  }
  .shares {
    display: grid;
    gap: 1.8rem;
  }
  .matrices > *,
  .shares > * {
    min-width: 0;
  }
`;

/** The rules, behind those that all pages share. */
export const reportRules: string = [maps, classes, sliders, charts, laws, plans, evaluations, experts].join("\n");
