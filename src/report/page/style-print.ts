/** Rules of pages on paper. */
import { css } from "./css.js";

/** Print is light, whatever the screen is: the script sets `data-print` while it redraws the charts for paper. */
export const printRules = css`
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
