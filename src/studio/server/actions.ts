/**
 * Commands that the page starts and stops, each a process of its own: the same program with the words that the page
 * shows. A request names what is wanted, never words of a command line.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { realpath } from "node:fs/promises";
import { basename, dirname, isAbsolute, join, relative, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { inputError, stopError } from "../../base/errors.js";
import { visibleLine } from "../../base/shown.js";
import type { RecordedCommand, StartedAction } from "../data/command-types.js";
import { checkedCommand, type FoundCommand } from "./noted.js";

/** A path or name: no option, nothing that cannot be seen. */
const word = z
  .string()
  .min(1)
  .max(1000)
  .regex(/^[^-\p{C}][^\p{C}]*$/u, "begins with a dash, or holds characters that cannot be seen");
const count = z.int().min(1).max(1024);

/** What can be asked for. */
export const actionSchema = z.discriminatedUnion("command", [
  z.strictObject({ command: z.literal("train"), file: word, out: word.optional(), threads: count.optional() }),
  z.strictObject({
    command: z.literal("study"),
    file: word,
    out: word.optional(),
    jobs: count.optional(),
    threads: count.optional(),
  }),
  z.strictObject({
    command: z.literal("convert"),
    model: word,
    recipe: z.string().regex(/^E\d{1,4}G\d{1,4}T\d{1,4}$/, "is no recipe such as E8G1T2"),
    out: word,
    format: z.enum(["hf", "megatron"]).optional(),
  }),
  z.strictObject({
    command: z.literal("eval"),
    models: z.array(word).min(1).max(16),
    tasks: z
      .array(z.string().regex(/^[\w.-]{1,100}$/))
      .min(1)
      .max(32),
    out: word.optional(),
    limit: z.int().min(1).max(1e6).optional(),
  }),
  /** Goes on with a run, a study or a conversion by the command that was noted for it. */
  z.strictObject({ command: z.literal("resume"), run: z.string().max(1000) }),
  /** Gives a command again that this server has started and that has ended: it goes on where it stopped. */
  z.strictObject({ command: z.literal("again"), id: z.int().min(1) }),
]);
/** A request of the page. */
export type ActionRequest = z.infer<typeof actionSchema>;

/** Lines of a command's words that are kept, and the longest. */
const mostLines = 200;
const longestLine = 2000;
/** The last of them that a page gets. */
const shownLines = 40;
/** Commands that may run at once, and ended ones that are remembered. */
const mostRunning = 16;
const mostEnded = 50;

/** What starting commands takes. */
export interface ActionOptions {
  /** The folder that is shown: commands write below it. */
  readonly root: string;
  /** The working folder of commands. */
  readonly folder: string;
  /** The command that was noted for a run. */
  readonly noted: (run: string) => Promise<FoundCommand | null>;
  /** Called whenever the list is another. */
  readonly onChange: () => void;
  /** The program and its first arguments; the tests give another. */
  readonly program?: readonly [string, ...string[]];
}

/** This program. */
export const ownProgram: readonly [string, ...string[]] = [
  process.execPath,
  fileURLToPath(new URL("../../cli/main.js", import.meta.url)),
];

interface Running {
  action: StartedAction;
  readonly child: ChildProcess;
  readonly ended: Promise<void>;
}

/** The commands of one server. */
export class Actions {
  readonly #options: ActionOptions;
  readonly #commands: Running[] = [];
  #next = 1;
  /** Requests that will be commands: they are counted before anything is waited for. */
  #pending = 0;
  #isClosed = false;

  constructor(options: ActionOptions) {
    this.#options = options;
  }

  /** All commands, the newest first. */
  get list(): readonly StartedAction[] {
    return this.#commands.map(({ action }) => ({ ...action, lines: action.lines.slice(-shownLines) })).reverse();
  }

  /** The words of the command that a request would start, and where. Throws inputError for what may not be started. */
  async wordsOf(request: ActionRequest): Promise<RecordedCommand> {
    const { folder } = this.#options;
    if (request.command === "resume") return this.#noted(request.run);
    if (request.command === "again") return this.#ended(request.id);
    const out = request.out === undefined ? this.#usualOut(request) : request.out;
    await this.#requireInside(out);
    const given = ["--out", out];
    switch (request.command) {
      case "train":
      case "study": {
        const threads = request.threads === undefined ? [] : ["--threads", String(request.threads)];
        const jobs = request.command === "study" && request.jobs !== undefined ? ["--jobs", String(request.jobs)] : [];
        return { words: ["upcycle", request.command, request.file, ...given, ...jobs, ...threads], folder };
      }
      case "convert": {
        const format = request.format === undefined ? [] : ["--format", request.format];
        const recipe = ["--recipe", request.recipe];
        return { words: ["upcycle", "convert", request.model, ...recipe, ...given, ...format], folder };
      }
      case "eval": {
        const limit = request.limit === undefined ? [] : ["--limit", String(request.limit)];
        const tasks = ["--tasks", request.tasks.join(",")];
        return { words: ["upcycle", "eval", ...request.models, ...tasks, ...limit, ...given], folder };
      }
    }
  }

  /** Starts what a request asks for. Throws inputError for what may not be started. */
  async start(request: ActionRequest): Promise<StartedAction> {
    if (this.#commands.filter(({ action }) => action.state !== "ended").length + this.#pending >= mostRunning)
      throw inputError(`${mostRunning} commands run already`, { hint: "wait for one, or stop it" });
    this.#pending++;
    const { words, folder } = await this.wordsOf(request).finally(() => this.#pending--);
    if (this.#isClosed) throw stopError("the studio is ending");
    const [program, ...first] = this.#options.program ?? ownProgram;
    const child = spawn(program, [...first, ...words.slice(1)], { cwd: folder, stdio: ["ignore", "pipe", "pipe"] });
    return this.#follow(child, words, folder);
  }

  /** Asks a command to save and stop; asked again, it ends at once. Returns false for a number that runs nowhere. */
  stop(id: number): boolean {
    const running = this.#commands.find(({ action }) => action.id === id && action.state !== "ended");
    if (running === undefined) return false;
    running.action = { ...running.action, state: "stopping" };
    running.child.kill("SIGINT");
    this.#options.onChange();
    return true;
  }

  /** Asks all to save and stop, and waits for them. */
  async close(): Promise<void> {
    this.#isClosed = true;
    for (const { action } of this.#commands) if (action.state === "running") this.stop(action.id);
    await Promise.all(this.#commands.map(({ ended }) => ended));
  }

  /** The words of a command that has ended. */
  #ended(id: number): RecordedCommand {
    const found = this.#commands.find(({ action }) => action.id === id && action.state === "ended");
    if (found === undefined) throw inputError("no command of this number has ended", { where: String(id) });
    return { words: found.action.words, folder: found.action.folder };
  }

  #follow(child: ChildProcess, words: readonly string[], folder: string): StartedAction {
    const started = Date.now();
    const action: StartedAction = {
      id: this.#next++,
      words,
      folder,
      state: "running",
      exitCode: null,
      started,
      ended: null,
      lines: [],
    };
    const ended = new Promise<void>((done) => {
      const end = (exitCode: number | null, lines: readonly string[] = []): void => {
        running.action = {
          ...running.action,
          state: "ended",
          exitCode,
          ended: Date.now(),
          lines: [...running.action.lines, ...lines].slice(-mostLines),
        };
        this.#options.onChange();
        done();
      };
      child.on("error", (error) => end(null, [visibleLine(error.message)]));
      child.on("close", (code) => end(code));
    });
    const running: Running = { action, child, ended };
    for (const stream of [child.stdout, child.stderr]) this.#takeLines(running, stream);
    this.#commands.push(running);
    while (this.#commands.length > mostEnded) {
      const oldest = this.#commands.findIndex((one) => one.action.state === "ended");
      if (oldest < 0) break;
      this.#commands.splice(oldest, 1);
    }
    this.#options.onChange();
    return action;
  }

  #takeLines(running: Running, stream: NodeJS.ReadableStream | null): void {
    let rest = "";
    stream?.on("data", (chunk: Buffer) => {
      const lines = (rest + chunk.toString("utf8")).slice(-1e6).split(/\r?\n|\r/);
      rest = lines.pop() ?? "";
      if (lines.length === 0) return;
      const shown = lines.map((line) => visibleLine(line, longestLine));
      running.action = { ...running.action, lines: [...running.action.lines, ...shown].slice(-mostLines) };
      this.#options.onChange();
    });
  }

  async #noted(run: string): Promise<RecordedCommand> {
    const found = await this.#options.noted(run);
    if (found === null)
      throw inputError("no command was noted for this run", { where: run, hint: "start it from a shell" });
    const { command, writes } = checkedCommand(found, run);
    for (const folder of writes) await this.#requireInside(folder);
    return command;
  }

  /** Below the folder that is shown, by the name of what is started. */
  #usualOut(request: Exclude<ActionRequest, { command: "resume" | "again" }>): string {
    const name =
      request.command === "eval" ? "eval" : request.command === "convert" ? request.recipe : basename(request.file);
    return shownFrom(this.#options.folder, join(this.#options.root, name.replace(/\.ya?ml$/i, "")));
  }

  /** Throws inputError for a place that is not below the folder that is shown, links resolved. */
  async #requireInside(out: string): Promise<void> {
    const { root, folder } = this.#options;
    const wanted = resolve(folder, out);
    let there = wanted;
    let real: string | null = null;
    while (real === null) {
      real = await realpath(there).catch(() => null);
      if (real === null) there = dirname(there);
    }
    const below = relative(root, join(real, relative(there, wanted)));
    if (below !== ".." && !below.startsWith(`..${sep}`) && !isAbsolute(below)) return;
    throw inputError("commands of the page write below the folder that is shown", {
      where: out,
      hint: `name a folder in ${root}`,
    });
  }
}

/** A path as it is written in a folder: relative where it lies below it. */
function shownFrom(folder: string, path: string): string {
  const below = relative(folder, path);
  return below === "" || below.startsWith("..") || isAbsolute(below) ? path : below;
}
