/**
 * The frame that all pages share: one HTML file that opens without a network, with its style, its data, the chart
 * library and its scripts in it.
 */
import { embedAsset, embedJson, escapeHtml } from "./escape.js";
import { chartScript } from "./script-chart.js";
import { pageStyle } from "./style.js";

/** Texts of `uPlot.iife.min.js` and `uPlot.min.css`: read by the caller, because this room does no IO. */
export interface ReportAssets {
  readonly uplotJs: string;
  readonly uplotCss: string;
}

/** What one page adds to the shell. Everything but `title` and `version` is markup, CSS or JavaScript as it stands. */
export interface HtmlPage {
  /** Plain text. */
  readonly title: string;
  /** Version of Upcycle, as plain text. */
  readonly version: string;
  /** CSS after the style sheet that all pages share. */
  readonly style?: string;
  /** Sections of the page, header first; empty ones leave a blank line out. */
  readonly body: readonly string[];
  /** End of the sentence "Written by upcycle VERSION", as markup. */
  readonly footer: string;
  /** What the scripts read as `report`, and the sections have drawn without them. */
  readonly data: unknown;
  /** Bundled code that the page's own script calls. */
  readonly libraries?: readonly string[];
  /** The page's own script; the functions of `chartScript` are there. */
  readonly script: string;
}

/** Forbids every load, also by mistake: the page can only use what is written in it. */
const contentPolicy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:";

/** The whole file, from doctype to `</html>`. */
export function renderPage(page: HtmlPage, assets: ReportAssets): string {
  return `<!doctype html>
<html lang="en">
${head(page, assets)}
<body>
<main>
${page.body.filter((part) => part !== "").join("\n")}
</main>
<footer><p>Written by upcycle ${escapeHtml(page.version)}${page.footer}</p></footer>
<script type="application/json" id="report-data">${embedJson(page.data)}</script>
${scripts(page, assets).join("\n")}
</body>
</html>
`;
}

function head({ title, version, style = "" }: HtmlPage, { uplotCss }: ReportAssets): string {
  return `<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${contentPolicy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="upcycle ${escapeHtml(version)}">
<title>${escapeHtml(title)}</title>
<link rel="icon" href="data:,">
<style>${embedAsset(uplotCss)}</style>
<style>${pageStyle()}${style}</style>
<script>document.documentElement.classList.add("with-script");</script>
</head>`;
}

function scripts({ libraries = [], script }: HtmlPage, { uplotJs }: ReportAssets): string[] {
  const texts = [...[uplotJs, ...libraries].map(embedAsset), chartScript + script];
  return texts.map((text) => `<script>${text}</script>`);
}

/** A section with its heading; `title` and `body` are markup. */
export function pageSection(id: string, title: string, body: string): string {
  return `<section aria-labelledby="${id}-title" id="${id}"><h2 id="${id}-title">${title}</h2>${body}</section>`;
}

/** Names and what they stand for, as rows of a definition list; both are plain text. */
export function factRows(facts: readonly (readonly [name: string, text: string])[]): string {
  return facts.map(([name, text]) => `<div><dt>${escapeHtml(name)}</dt><dd>${escapeHtml(text)}</dd></div>`).join("");
}

/** Facts about where a page's numbers are from, and the shell command that makes the page again; all plain text. */
export function factsAndCommand(facts: readonly (readonly [name: string, text: string])[], command: string): string {
  return (
    `<dl class="facts-list">${factRows(facts)}</dl><h3>Again</h3>` +
    `<div class="commands"><pre><code>${escapeHtml(command)}</code></pre></div>`
  );
}
