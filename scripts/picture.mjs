// Makes README's picture of a report, with the Chromium that CHROMIUM names:
//   npx upcycle quickstart
//   CHROMIUM=/usr/bin/chromium node scripts/picture.mjs runs/quickstart/report.html docs/report.png
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import puppeteer from "puppeteer-core";

const [report, picture] = process.argv.slice(2);
const chromium = process.env.CHROMIUM;
if (report === undefined || picture === undefined || chromium === undefined) {
  console.error("picture: CHROMIUM=PATH node scripts/picture.mjs REPORT.html PICTURE.png");
  process.exit(2);
}

const size = { width: 1200, height: 2450 };
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
  await page.goto(pathToFileURL(resolve(report)).href);
  // Charts are drawn after the page: a picture taken at once has none.
  await page.waitForFunction("document.querySelectorAll('canvas').length > 1", { timeout: 20_000 });
  await new Promise((resolve) => setTimeout(resolve, 1000));
  await page.screenshot({ path: picture, clip: { x: 0, y: 0, ...size } });
} finally {
  await browser.close();
}
