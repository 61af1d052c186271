/** A browser that tests may drive, where one is installed: CHROMIUM in the environment, or the usual names. */
import { createReadStream, existsSync, mkdtempSync } from "node:fs";
import { rm } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, extname, join, normalize } from "node:path";
import puppeteer, { type Page } from "puppeteer-core";
import { afterAll } from "vitest";

const names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
export const chromium: string | undefined =
  process.env.CHROMIUM ??
  (process.env.PATH ?? "")
    .split(delimiter)
    .flatMap((folder) => names.map((name) => join(folder, name)))
    .find((path) => existsSync(path));

const flags = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** What this file has begun, to be ended last first. */
const endings: (() => Promise<void>)[] = [];
afterAll(async () => {
  for (const end of endings.reverse()) await end();
});

export interface OpenPage {
  readonly page: Page;
  /** What the page's scripts threw and nobody caught. */
  readonly errors: readonly string[];
}

/** A new page at `url`; its browser ends with the test file. A busy machine may take long to start one. */
export async function openPage(url: string): Promise<OpenPage> {
  const userDataDir = mkdtempSync(join(tmpdir(), "upcycle-browser-"));
  endings.push(() => rm(userDataDir, { recursive: true, force: true, maxRetries: 5 }));
  const browser = await puppeteer.launch({
    executablePath: chromium!,
    args: flags,
    userDataDir,
    timeout: 50_000,
    protocolTimeout: 120_000,
    defaultViewport: { width: 1200, height: 900 },
  });
  endings.push(() => browser.close());
  const page = await browser.newPage();
  const errors: string[] = [];
  page.on("pageerror", (error) => errors.push(error instanceof Error ? error.message : String(error)));
  await page.goto(url);
  return { page, errors };
}

const types: Readonly<Record<string, string>> = {
  ".html": "text/html",
  ".mjs": "text/javascript",
  ".js": "text/javascript",
  ".wasm": "application/wasm",
};

/**
 * Serves folders of this machine to it alone, each under a first path segment, until the test file ends; gives the
 * origin. `/` is an empty page.
 */
export async function serveFolders(folders: Readonly<Record<string, string>>): Promise<string> {
  const server = createServer((request, response) => {
    const [, first = "", ...rest] = normalize(new URL(request.url ?? "/", "http://localhost").pathname).split("/");
    const path = first === "" ? undefined : join(folders[first] ?? "/nowhere", ...rest);
    const found = path === undefined || existsSync(path);
    response.writeHead(found ? 200 : 404, {
      "content-type": types[extname(path ?? "index.html")] ?? "application/octet-stream",
    });
    if (path === undefined || !found) response.end("<!doctype html><title>test</title>");
    else createReadStream(path).pipe(response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  endings.push(() => ended(server));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

function ended(server: Server): Promise<void> {
  server.closeAllConnections();
  return new Promise((resolve) => server.close(() => resolve()));
}
