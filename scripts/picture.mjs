// Makes README's pictures, with the Chromium that CHROMIUM names:
//   npx upcycle quickstart
//   CHROMIUM=/usr/bin/chromium node scripts/picture.mjs runs/quickstart/report.html docs/report.png
//   CHROMIUM=/usr/bin/chromium node scripts/picture.mjs runs docs/studio.png
// The first is a report; the second, of a folder, is the studio's start page.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { statSync, writeFileSync } from "node:fs";
import { basename, dirname, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import puppeteer from "puppeteer-core";
import { withPalette } from "./png.mjs";

const [source, picture] = process.argv.slice(2);
const chromium = process.env.CHROMIUM;
if (source === undefined || picture === undefined || chromium === undefined) {
  console.error("picture: CHROMIUM=PATH node scripts/picture.mjs REPORT.html|FOLDER PICTURE.png");
  process.exit(2);
}
const isStudio = statSync(source).isDirectory();

/** Starts the studio of a folder, and gives the address that it prints. */
async function startStudio() {
  // The page names the folder as it was given: without those above it, which are of this machine.
  const program = resolve("bin/upcycle.js");
  const words = [program, "studio", basename(source), "--no-open"];
  const child = spawn(process.execPath, words, { cwd: dirname(resolve(source)) });
  let said = "";
  while (!/http:\/\/\S+/.test(said)) {
    const [chunk] = await once(child.stdout, "data");
    said += String(chunk);
  }
  return { address: /http:\/\/\S+/.exec(said)[0], child };
}

// The studio's page is as wide as it is on a laptop; two pixels for one, so that text stays sharp in the README.
const size = isStudio ? { width: 1180, height: 1010 } : { width: 1200, height: 2450 };
const studio = isStudio ? await startStudio() : null;
const browser = await puppeteer.launch({
  executablePath: chromium,
  args: [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    ...(process.env.CHROMIUM_FLAGS ?? "").split(" "),
  ],
  defaultViewport: size,
  // In the locale POSIX the page's numbers have no language, and the chart library gives up.
  env: { ...process.env, LANG: "en_US.UTF-8", LC_ALL: "en_US.UTF-8" },
});
try {
  const page = await browser.newPage();
  await page.goto(studio?.address ?? pathToFileURL(resolve(source)).href);
  // What is asked for comes after the page: a picture taken at once has none of it.
  const isThere = isStudio
    ? "document.querySelector('.bars') !== null"
    : "document.querySelectorAll('canvas').length > 1";
  await page.waitForFunction(isThere, { timeout: 20_000 });
  await new Promise((resolve) => setTimeout(resolve, 1000));
  writeFileSync(picture, withPalette(await page.screenshot({ clip: { x: 0, y: 0, ...size } })));
} finally {
  await browser.close();
  studio?.child.kill("SIGINT");
}
