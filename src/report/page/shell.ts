/**
 * The frame that all pages share: one HTML file that opens without a network, with its style, its data and its script
 * in it. The script is made of the studio's components; the studio reads the data of such files and shows them with the
 * same sections.
 */
import { embedAsset, embedJson, escapeHtml } from "./escape.js";
import { pageStyle } from "./style.js";

/** Texts that the build makes (scripts/browser.mjs): read by the caller, because this room does no IO. */
export interface ReportAssets {
  /** The charts, maps and sliders of reports. */
  readonly script: string;
  /** The style sheet of the chart library. */
  readonly style: string;
}

/** What a report is about, by which the studio and the script know how to show its data. */
export type ReportKind = "study" | "law" | "plan" | "evaluation" | "experts";

/** A report without its frame: what a file and the studio show alike. */
export interface ReportBody {
  readonly kind: ReportKind;
  /** Plain text. */
  readonly title: string;
  /** Sections, the header first, as markup without scripts and without styles of its own; empty ones are left out. */
  readonly sections: readonly string[];
  /** What the parts that need a script draw; JSON. */
  readonly data: unknown;
}

/** What a file has besides a report's body. */
export interface HtmlPage {
  readonly body: ReportBody;
  /** Version of Upcycle, as plain text. */
  readonly version: string;
  /** What the studio needs besides `body.data` to make the report again; JSON. */
  readonly source: unknown;
  /** Bundled code that the report's script calls. */
  readonly libraries?: readonly string[];
}

/** Forbids every load, also by mistake: the page can only use what is written in it. */
const contentPolicy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:";

/** The whole file, from doctype to `</html>`; it has a script only where a part of it needs one. */
export function renderPage(page: HtmlPage, assets: ReportAssets): string {
  const { body, version, source, libraries = [] } = page;
  const { kind, sections, data } = body;
  const needsScript = sections.some((section) => section.includes(" data-island=") || section.includes(" data-copy="));
  const scripts = needsScript
    ? [...libraries, assets.script].map((text) => `<script>${embedAsset(text)}</script>`)
    : [];
  return `<!doctype html>
<html lang="en">
${head(page, assets)}
<body>
<main class="report report-${kind}">
${sections.filter((part) => part !== "").join("\n")}
</main>
<footer><p>Written by upcycle ${escapeHtml(version)}. Nothing on this page is loaded from a network.</p></footer>
<script type="application/json" id="report-data">${embedJson({ kind, data, source })}</script>
${scripts.join("\n")}
</body>
</html>
`;
}

function head({ body: { title }, version }: HtmlPage, { style }: ReportAssets): string {
  return `<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${contentPolicy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="upcycle ${escapeHtml(version)}">
<title>${escapeHtml(title)}</title>
<link rel="icon" href="data:,">
<style>${embedAsset(style)}</style>
<style>${pageStyle()}</style>
<script>document.documentElement.classList.add("with-script");</script>
</head>`;
}

/** A section with its heading; `title` and `body` are markup. */
export function pageSection(id: string, title: string, body: string, className = ""): string {
  const classes = className === "" ? "" : ` class="${className}"`;
  const heading = `<h2 id="${id}-title">${title}</h2>`;
  return `<section aria-labelledby="${id}-title" id="${id}"${classes}>${heading}${body}</section>`;
}

/** Names and what they stand for, as rows of a definition list; both are plain text. */
export function factRows(facts: readonly (readonly [name: string, text: string])[]): string {
  return facts.map(([name, text]) => `<div><dt>${escapeHtml(name)}</dt><dd>${escapeHtml(text)}</dd></div>`).join("");
}

/** Facts about where a page's numbers are from, and the shell command that makes the page again; all plain text. */
export function factsAndCommand(facts: readonly (readonly [name: string, text: string])[], command: string): string {
  return (
    `<dl class="facts-list">${factRows(facts)}</dl><h3>Again</h3>` +
    `<div class="commands"><pre tabindex="0" aria-label="Command"><code>${escapeHtml(command)}</code></pre></div>`
  );
}
