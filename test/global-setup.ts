/**
 * Child processes and worker threads run compiled code: builds it if a source is newer than its output. Makes the
 * folder that tests write into.
 */
import { execSync } from "node:child_process";
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { makeScratch, removeScratch } from "./scratch.js";

const root = fileURLToPath(new URL("..", import.meta.url));

const modified = (path: string): number => statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? -Infinity;

/** What a source is compiled to: the studio's page becomes one script. */
function outputOf(file: string): string {
  if (file.startsWith(join("studio", "page"))) return "dist/studio/page/studio.js";
  return join("dist", file.replace(/\.ts$/, ".js"));
}

function isStale(): boolean {
  const sources = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" }).filter((file) =>
    /\.(tsx?|css)$/.test(file),
  );
  if (
    modified(join(root, "dist/report/plan/plan-live.bundle.js")) < modified(join(root, "dist/report/plan/plan-live.js"))
  )
    return true;
  return sources.some((file) => modified(join(root, "src", file)) > modified(join(root, outputOf(file))));
}

/** Whether a compiled module is newer than the bundle of the command line. */
function isBundleStale(): boolean {
  const bundled = modified(join(root, "dist/bundle/main.js"));
  return readdirSync(join(root, "dist"), { recursive: true, encoding: "utf8" }).some(
    (file) => file.endsWith(".js") && !file.startsWith("bundle") && modified(join(root, "dist", file)) > bundled,
  );
}

export default function setup(): () => void {
  makeScratch();
  if (isStale()) execSync("npm run build", { cwd: root, stdio: "inherit" });
  else if (isBundleStale()) execSync("node scripts/bundle.mjs", { cwd: root, stdio: "inherit" });
  return removeScratch;
}
