/** A browser that tests may drive, where one is installed: CHROMIUM in the environment, or the usual names. */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";

const names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
export const chromium: string | undefined =
  process.env.CHROMIUM ?? (process.env.PATH ?? "").split(delimiter).flatMap((folder) => names.map((name) => join(folder, name))).find((path) => existsSync(path));

const flags = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
];

/**
 * The page's markup after its scripts have run and `ready` is true of it; a browser on a busy machine may print too early, so it is asked again
 * a few times. `profile`: a folder for the browser's own files.
 */
export async function domOf(page: string, profile: string, ready: (dom: string) => boolean): Promise<string> {
  let dom = "";
  for (let attempt = 0; attempt < 8; attempt++) {
    dom = await dump(page, `${profile}${attempt}`);
    if (ready(dom)) break;
  }
  return dom;
}

function dump(page: string, profile: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(chromium!, [...flags, `--user-data-dir=${profile}`, "--virtual-time-budget=20000", "--window-size=1200,900", "--dump-dom", `file://${page}`], { stdio: ["ignore", "pipe", "ignore"] });
    let text = "";
    child.stdout.setEncoding("utf8").on("data", (part: string) => (text += part));
    child.on("error", reject);
    child.on("close", () => resolve(text));
  });
}
