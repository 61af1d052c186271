// What the page shows in Chromium, which draws without a GPU.
import { existsSync } from "node:fs";
import puppeteer from "puppeteer-core";

const programs = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

/** Chromium; null where there is none. */
export async function openBrowser() {
  const executablePath = programs.find((path) => path !== undefined && existsSync(path));
  if (executablePath === undefined) return null;
  return puppeteer.launch({
    executablePath,
    args: ["--headless", "--no-sandbox", "--disable-gpu"],
    defaultViewport: { width: 1280, height: 900 },
  });
}

/**
 * Milliseconds until a condition of the page holds and the frame with it was drawn; the page keeps the time. `hash` is
 * where it goes first; null begins at its navigation.
 */
export const until = (page, hash, condition) =>
  page.evaluate(
    `new Promise((done) => {
      const start = ${hash === null ? 0 : "performance.now()"};
      ${hash === null ? "" : `location.hash = ${JSON.stringify(hash)};`}
      const look = () => {
        if (!(${condition})) return void requestAnimationFrame(look);
        // The frame after the one that has it begins when that one was drawn.
        requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
      };
      look();
    })`,
  );

/** Milliseconds from the navigation to the first paint that shows something. */
export async function firstPaint(page) {
  await page.waitForFunction("performance.getEntriesByName('first-contentful-paint').length > 0");
  return page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime");
}
