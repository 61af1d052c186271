// Bundles what pages run, so that each loads one script.
//
// - dist/report/plan/plan-live.js and the pure modules it imports -> plan-live.bundle.js, which defines `upcyclePlan`.
//   The same compiled code runs in Node and in the page.
// - src/studio/page/main.tsx -> dist/studio/page/studio.js, and the style sheets of all pages, of uPlot and of the
//   studio -> studio.css.
// - src/studio/page/report-main.tsx -> dist/studio/page/report.js, the same charts for the files of reports, and the
//   style sheet of uPlot -> report.css.
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { rolldown } from "rolldown";

const plan = await rolldown({ input: "dist/report/plan/plan-live.js", logLevel: "warn" });
await plan.write({ file: "dist/report/plan/plan-live.bundle.js", format: "iife", name: "upcyclePlan", minify: true });
await plan.close();

const folder = "dist/studio/page";
await rm(folder, { recursive: true, force: true });
await mkdir(folder, { recursive: true });
for (const [source, name] of [
  ["main", "studio"],
  ["report-main", "report"],
]) {
  const page = await rolldown({
    input: `src/studio/page/${source}.tsx`,
    logLevel: "warn",
    tsconfig: "tsconfig.page.json",
    platform: "browser",
    // Sources name the compiled files, as Node needs it.
    resolve: { extensionAlias: { ".js": [".ts", ".tsx", ".js"] } },
  });
  await page.write({ file: `${folder}/${name}.js`, format: "iife", minify: true });
  await page.close();
}

const { pageStyle } = await import("../dist/report/page/style.js");
const uplot = join(dirname(createRequire(import.meta.url).resolve("uplot/package.json")), "dist", "uPlot.min.css");
const library = await readFile(uplot, "utf8");
const squeezed = (...sheets) =>
  sheets
    .join("\n")
    .replace(/\/\*[\s\S]*?\*\//g, "")
    .replace(/\s*\n\s*/g, "\n");
await writeFile(`${folder}/report.css`, squeezed(library));
await writeFile(
  `${folder}/studio.css`,
  squeezed(library, pageStyle(), await readFile("src/studio/page/studio.css", "utf8")),
);
