/** The page: its script and style as the build has made them, and the HTML around them, on a server or as one file. */
import { createHash } from "node:crypto";
import { fileURLToPath } from "node:url";
import { readText } from "../../files/io/ranges.js";
import { stopError } from "../../base/errors.js";
import { embedAsset, embedJson, escapeHtml } from "../../report/page/escape.js";

/** The texts that the build makes. */
export interface PageAssets {
  readonly script: string;
  readonly style: string;
  /** Reads the planner, which a file with plans brings with it: on a server the server computes them. */
  readonly planner: () => Promise<string>;
}

/** Reads them. Throws stopError where the program was not built whole. */
export async function pageAssets(): Promise<PageAssets> {
  const text = async (name: string): Promise<string> => {
    const path = fileURLToPath(new URL(`../../../dist/${name}`, import.meta.url));
    return readText(path).catch((cause: unknown) => {
      throw stopError("the studio's page is not there", { where: path, hint: "build it: npm run build", cause });
    });
  };
  const [script, style] = await Promise.all([text("studio/page/studio.js"), text("studio/page/studio.css")]);
  return { script, style, planner: () => text("report/plan/plan-live.bundle.js") };
}

/** A name that is another for every content, so that browsers may keep what stands under it. */
export const contentName = (name: string, text: string): string => {
  const hash = createHash("sha256").update(text).digest("hex").slice(0, 12);
  return name.replace(/\.(\w+)$/, `.${hash}.$1`);
};

const head = (title: string, more: string): string => `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${escapeHtml(title)}</title>
<link rel="icon" href="data:,">
${more}
</head>`;

const titleOf = (folder: string): string => `${folder} · Upcycle studio`;

/**
 * The page as the server sends it, and its style sheet, which stands in it: the first paint waits for no other answer.
 * The rules of what the page may use name the style sheet by its hash.
 */
export function livePage(
  folder: string,
  { script, style }: PageAssets,
): { readonly html: string; readonly style: string } {
  const sheet = embedAsset(style);
  // Every view needs the list of runs: it is asked for while the script is still on its way.
  const more = `<link rel="preload" href="/api/runs" as="fetch" crossorigin="anonymous">
<script src="/${contentName("studio.js", script)}" defer></script>
<style>${sheet}</style>`;
  const html = `${head(titleOf(folder), more)}
<body>
<div id="studio" data-folder="${escapeHtml(folder)}"><main><p>Loading…</p></main></div>
</body>
</html>
`;
  return { html, style: sheet };
}

/** Forbids every load: the page can only use what is written in it. */
const filePolicy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:";

/** The page as one file, with the answers that it may ask for, by path and query. */
export function filePage(
  folder: string,
  { script, style }: PageAssets,
  {
    answers,
    version,
    made,
    libraries,
  }: {
    readonly answers: Readonly<Record<string, unknown>>;
    readonly version: string;
    readonly made: string;
    readonly libraries: readonly string[];
  },
): string {
  const meta = `<meta http-equiv="Content-Security-Policy" content="${filePolicy}">
<meta name="generator" content="upcycle ${escapeHtml(version)}">
<style>${embedAsset(style)}</style>`;
  return `${head(titleOf(folder), meta)}
<body>
<div id="studio" data-folder="${escapeHtml(folder)}"><main><p>Loading…</p></main></div>
<script type="application/json" id="studio-answers">${embedJson({ made, answers })}</script>
${[...libraries, script].map((code) => `<script>${embedAsset(code)}</script>`).join("\n")}
</body>
</html>
`;
}
