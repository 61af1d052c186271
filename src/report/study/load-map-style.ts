/** The style of the maps of expert loads. Their seven colours are variables of the style sheet that all pages share. */
import { css } from "../page/css.js";

const maps = css`
  .maps {
    display: grid;
    grid-template-columns: repeat(2, minmax(0, 1fr));
    gap: 2rem 2.25rem;
    grid-auto-flow: dense;
  }
  .map:has(.many) {
    grid-column: 1 / -1;
  }
  .map-controls {
    display: flex;
    align-items: center;
    gap: 0.75rem;
    margin-bottom: 0.6rem;
    font-size: 0.84rem;
  }
  .map-controls input {
    flex: 1 1 8rem;
    min-width: 4rem;
    max-width: 22rem;
    accent-color: var(--accent);
  }
  .map-controls output {
    min-width: 6em;
    font-variant-numeric: tabular-nums;
  }
  .row {
    display: flex;
    align-items: center;
    gap: 0.5rem;
    margin-bottom: 3px;
    font-size: 0.78rem;
    color: var(--muted);
    font-variant-numeric: tabular-nums;
  }
  .layer {
    flex: 0 0 1.3rem;
    text-align: right;
  }
  .busiest {
    flex: 0 0 2.7rem;
  }
  .numbers {
    align-items: end;
    margin-bottom: 1px;
    font-size: 0.7rem;
    line-height: 1.2;
  }
  .numbers .group span {
    flex: 1 1 0;
    min-width: 0;
    white-space: nowrap;
  }
  .numbers .layer {
    font-size: 0.7rem;
  }
  .cells {
    display: flex;
    flex: 1 1 0;
    min-width: 0;
    gap: 3px;
  }
  .many .cells {
    gap: clamp(2px, 0.55vw, 7px);
  }
  .group {
    display: flex;
    flex: var(--n) 1 0;
    min-width: 0;
    gap: 2px;
  }
  .many .group {
    gap: 1px;
  }
  .group .cell {
    flex: 1 1 0;
    min-width: 0;
    height: 1.65rem;
  }
  .cell {
    border-radius: 2px;
    print-color-adjust: exact;
    -webkit-print-color-adjust: exact;
  }
  .many .cell {
    border-radius: 1px;
  }
  .l0 {
    background: var(--page);
    box-shadow: inset 0 0 0 1.5px var(--ink);
  }
`;

const steps = [1, 2, 3, 4, 5, 6, 7].map((step) => `.l${step} { background: var(--l${step}); }`).join(" ");

const readouts = css`
  .map-readout {
    margin: 0.45rem 0 0 1.8rem;
    font-size: 0.82rem;
  }
  @media (max-width: 44rem) {
    .maps {
      grid-template-columns: minmax(0, 1fr);
    }
    .many .numbers {
      display: none;
    }
    .many .cells {
      flex-wrap: wrap;
    }
    .many .group {
      flex: 1 0 21%;
    }
    .many .group .cell {
      height: 1.1rem;
    }
    .many .row {
      margin-bottom: 9px;
    }
  }
  @media (prefers-reduced-motion: no-preference) {
    .cell {
      transition: background-color 0.12s linear;
    }
  }
  @media print {
    .map-controls {
      display: none !important;
    }
  }
`;

/** The rules, for the pages that have such maps. */
export const loadMapStyle: string = [maps, steps, readouts].join("\n");
