/** `upcycle studio`: a local page over run folders, live; the page as one file; what it shows as JSON. */
import { spawn } from "node:child_process";
import { setFlagsFromString } from "node:v8";
import { Command } from "commander";
import { inputError } from "../base/errors.js";
import { isOwnPage, requireFilePlace } from "../files/io/named-file.js";
import { writeFileAtomic } from "../files/io/atomic.js";
import type { StudioAlert } from "../studio/data/types.js";
import { exportPage } from "../studio/server/export.js";
import { pageAssets } from "../studio/server/page.js";
import { startServer } from "../studio/server/server.js";
import { answerPaths, Studio } from "../studio/server/studio.js";
import { openContext, shownPath } from "./context.js";
import { webAddress, wholeNumber, withExample, withJson } from "./options.js";
import type { Terminal } from "./terminal.js";

interface StudioFlags {
  readonly port?: number;
  readonly open: boolean;
  readonly allowActions?: boolean;
  readonly webhook?: string;
  readonly export?: string;
  readonly print?: string;
  readonly json?: boolean;
}

/** The command with its options and its help. */
export function studioCommand(): Command {
  const command = new Command("studio")
    .description("show runs, experts, models and reports on a local page while they happen")
    .argument("[dir]", "folder that is shown, with all below it", "runs")
    .option(
      "--port <n>",
      "port on this machine (default: the first free one from 7007 on)",
      wholeNumber("--port", 1, 65_535),
    )
    .option("--no-open", "do not open a browser, only print the address")
    .option("--allow-actions", "let the page start and stop train, study, convert and eval; otherwise it only reads")
    .option("--webhook <url>", "gets each alert as JSON by POST; nothing leaves the machine without it", webAddress)
    .option("--export <file>", "write the page as one HTML file instead, which opens without a server")
    .option("--print <path>", "print what the page gets under this path as JSON instead, and end: /api/runs")
    .action(execute);
  return withExample(
    withJson(command),
    "upcycle studio runs",
    "It answers this machine alone, and whoever opens the printed address. On another machine: start it there with " +
      "--no-open, then ssh -L 7007:127.0.0.1:7007 HOST here, and open the address that it has printed.",
    `Paths of --print: ${Object.keys(answerPaths).join(", ")}; settings as in an address: ` +
      "'/api/run?name=quickstart/parent'.",
  );
}

async function execute(dir: string, flags: StudioFlags): Promise<void> {
  const { print, allowActions = false } = flags;
  if (flags.export !== undefined) await requireFilePlace(flags.export, "page of this command", isOwnPage);
  if (print !== undefined && flags.export !== undefined)
    throw inputError("give one of the two", { where: "--print and --export" });
  const studio = await Studio.open({ dir: shownPath(dir), actions: allowActions });
  if (print !== undefined) return printAnswer(studio, print, flags);
  if (flags.export !== undefined) return writePage(studio, flags.export, flags);
  await serve(studio, flags);
}

/** What the page would get. Throws inputError for a path or a name that is not there. */
async function printAnswer(studio: Studio, print: string, { json }: StudioFlags): Promise<void> {
  const { terminal } = openContext({ json });
  const [path = "", query = ""] = print.split(/\?(.*)/s, 2);
  await studio.look();
  const answer = await studio.answer(path, new URLSearchParams(query));
  if (answer === null)
    throw inputError("there is nothing of this name", {
      where: `--print ${print}`,
      hint: `paths are ${Object.keys(answerPaths).join(", ")}; names are those that /api/runs gives`,
    });
  terminal.json(answer);
}

async function writePage(studio: Studio, file: string, { json }: StudioFlags): Promise<void> {
  const { terminal } = openContext({ json });
  await studio.look();
  const text = await exportPage(studio, await pageAssets(), new Date().toISOString().slice(0, 10));
  await writeFileAtomic(file, text);
  if (json === true) terminal.json({ file, bytes: Buffer.byteLength(text), runs: studio.index.rows.length });
  else terminal.out(`page: ${shownPath(file)}`);
}

async function serve(studio: Studio, flags: StudioFlags): Promise<void> {
  // Nearly all that the server makes is gone a moment later, so room for it that grows to 32 MB is not used.
  setFlagsFromString("--semi-space-growth-factor=1");
  // What has lived a little longer is collected before as much of it again has gathered: answers of megabytes do that.
  setFlagsFromString("--heap-growing-percent=40");
  const { terminal, json, signal } = openContext({ json: flags.json, stopping: "" });
  const told = new Set<string>();
  const server = await startServer({
    studio,
    assets: await pageAssets(),
    port: flags.port ?? null,
    webhook: flags.webhook,
    onUndelivered: (message) => (json ? terminal.json({ type: "undelivered", message }) : terminal.note(message)),
    folder: process.cwd(),
    onChange: ({ alerts }) => {
      for (const alert of alerts) tell(alert, told, terminal, json);
    },
  });
  const { url, port } = server;
  if (json) terminal.json({ url, port, dir: studio.options.dir, actions: studio.options.actions });
  else {
    terminal.out(url);
    const may = studio.options.actions ? "the page may start and stop commands" : "it only reads";
    terminal.note(`showing ${studio.options.dir}; ${may}; Ctrl-C ends it`);
  }
  if (flags.open && !json && hasBrowser()) openBrowser(url);
  await new Promise<void>((done) => {
    if (signal.aborted) done();
    signal.addEventListener("abort", () => done());
  });
  const running = server.actions.list.filter(({ state }) => state === "running").length;
  if (running > 0) terminal.note(`stopping: ${running} commands of the page save and end (once more to stop at once)`);
  await server.close();
}

/** An alert of one kind of a run is said once; the page has the number of times. */
function tell(alert: StudioAlert, told: Set<string>, terminal: Terminal, json: boolean): void {
  const key = `${alert.run ?? ""} ${alert.kind}`;
  if (told.has(key)) return;
  told.add(key);
  if (json) terminal.json({ type: "alert", ...alert });
  else terminal.note(alertWords(alert));
}

/** An alert as a line of the terminal. */
export const alertWords = ({ level, run, step, message }: StudioAlert): string =>
  `${level}: ${[run, step === null ? null : `step ${step}`, message].filter((part) => part !== null).join(": ")}`;

/** Whether whoever types sees a browser of this machine: not behind ssh, not in a script. */
function hasBrowser(): boolean {
  if (process.stdout.isTTY !== true || process.env["SSH_CONNECTION"] !== undefined) return false;
  return (
    process.platform !== "linux" || process.env["DISPLAY"] !== undefined || process.env["WAYLAND_DISPLAY"] !== undefined
  );
}

function openBrowser(url: string): void {
  const [program, ...words]: readonly [string, ...string[]] =
    process.platform === "darwin"
      ? ["open", url]
      : process.platform === "win32"
        ? ["cmd", "/c", "start", "", url]
        : ["xdg-open", url];
  const child = spawn(program, words, { stdio: "ignore", detached: true });
  child.on("error", () => undefined);
  child.unref();
}
