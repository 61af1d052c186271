/** Rules of figures in tiles, of tables and of what they are searched and sorted by. */
import { css } from "./css.js";

/** A few large numbers side by side. */
export const tileRules = css`
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

/** Tables, and buttons and fields beside them. */
export const tableRules = css`
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
