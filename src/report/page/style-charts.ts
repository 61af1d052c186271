/** Rules of charts, their controls and legends. */
import { css } from "./css.js";

/** They read the variables of `style-colours.ts`. */
export const chartRules = css`
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
