/** Rules of what every page has: text, headings, links, notes. */
import { css } from "./css.js";

/** They come first: others may change what they say. */
export const baseRules = css`
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
