// Makes README's pictures, with the Chromium that CHROMIUM names; paths are seen from where it is called:
//   npx upcycle quickstart
//   CHROMIUM=/usr/bin/chromium node scripts/picture.mjs runs/quickstart/report.html docs/report.png
//   CHROMIUM=/usr/bin/chromium node scripts/picture.mjs runs docs/studio.png
// The first is a report; the second, of a folder, is the studio's start page.
import { spawn } from "node:child_process";
import { existsSync, statSync, writeFileSync } from "node:fs";
import { basename, dirname, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import puppeteer from "puppeteer-core";
import { withPalette } from "./png.mjs";

function refuse(message) {
  console.error(`picture: ${message}`);
  process.exit(2);
}

const [source, picture] = process.argv.slice(2);
const chromium = process.env.CHROMIUM;
if (source === undefined || picture === undefined || chromium === undefined)
  refuse("CHROMIUM=PATH node scripts/picture.mjs REPORT.html|FOLDER PICTURE.png");
for (const path of [source, dirname(resolve(picture)), chromium])
  if (!existsSync(path)) refuse(`${path}: there is nothing`);
const isStudio = statSync(source).isDirectory();

/** Starts the studio of a folder. Gives it, and the address that it prints. */
async function startStudio() {
  // The page names the folder as it was given: without those above it, which are of this machine.
  const program = fileURLToPath(new URL("../bin/upcycle.js", import.meta.url));
  const words = [program, "studio", basename(resolve(source)), "--no-open"];
  const child = spawn(process.execPath, words, { cwd: dirname(resolve(source)) });
  const said = { stdout: "", stderr: "" };
  const address = await new Promise((found, failed) => {
    for (const stream of ["stdout", "stderr"])
      child[stream].on("data", (chunk) => {
        said[stream] += String(chunk);
        const one = /http:\/\/\S+\s/.exec(said.stdout)?.[0];
        if (one !== undefined) found(one.trim());
      });
    child.once("error", failed);
    child.once("close", (code) => {
      failed(new Error(`the studio ended with code ${code}: ${said.stderr.trim().split("\n").at(-1)}`));
    });
  });
  return { address, child };
}

/** On the picture a command was given where a reader may give it, not in a folder of this machine. */
const hideFolders = `for (const one of document.querySelectorAll("p"))
  if (one.children.length === 0 && one.textContent.startsWith("given in ")) one.textContent = "given in /home/me"`;

/** The start page of a studio, or a report, as PNG. */
async function take(browser, address, size) {
  const page = await browser.newPage();
  await page.goto(address);
  // What is asked for comes after the page: a picture taken at once has none of it.
  const isThere = isStudio
    ? "document.querySelector('.bars') !== null"
    : "document.querySelectorAll('canvas').length > 1";
  await page.waitForFunction(isThere, { timeout: 20_000 });
  await new Promise((resolve) => setTimeout(resolve, 1000));
  if (isStudio) await page.evaluate(hideFolders);
  return withPalette(await page.screenshot({ clip: { x: 0, y: 0, ...size } }));
}

let [studio, browser] = [null, null];
try {
  if (isStudio) studio = await startStudio();
  // The studio's page is as wide as it is on a laptop.
  const size = isStudio ? { width: 1180, height: 1010 } : { width: 1200, height: 2450 };
  browser = await puppeteer.launch({
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
  const png = await take(browser, studio?.address ?? pathToFileURL(resolve(source)).href, size);
  writeFileSync(picture, png);
  console.log(`${picture}: ${Math.round(png.length / 1000)} kB`);
} catch (cause) {
  console.error(`picture: ${String(cause.message).split("\n")[0]}; ${picture} is as it was`);
  process.exitCode = 1;
} finally {
  await browser?.close();
  studio?.child.kill("SIGINT");
}
