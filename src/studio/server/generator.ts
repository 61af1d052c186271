/**
 * Texts that the page asks models for. Each is made by a process of its own, `upcycle generate`, whose lines are passed
 * on as they come, so that the server answers meanwhile. A page that goes away ends its text.
 */
import { spawn, type ChildProcess } from "node:child_process";
import type { ServerResponse } from "node:http";
import { z } from "zod";
import { inputError } from "../../base/errors.js";
import { visibleLine } from "../../base/shown.js";
import { requireMemory, type NamedSpec } from "../../evals/memory.js";
import { longestPrompt, mostTokens, pathBelow, textWords } from "../data/playground.js";
import { specIn } from "../folders/parents.js";
import { ownProgram } from "./actions.js";
import { safeHeaders } from "./guard.js";
import type { Studio } from "./studio.js";

const model = z.string().max(1000);

/** What can be asked for. */
export const textSchema = z.strictObject({
  model,
  /** The model that is to be in memory at the same time. */
  beside: model.optional(),
  prompt: z
    .string()
    .min(1)
    .max(longestPrompt)
    .regex(/^[^\0]*$/, "holds a character that no command line can hold"),
  seed: z.int().min(0).max(Number.MAX_SAFE_INTEGER),
  temperature: z.number().min(0).max(100),
  maxTokens: z.int().min(1).max(mostTokens),
});
/** A request for a text. */
export type TextAsked = z.infer<typeof textSchema>;

/** Texts that may be made at once. */
const mostTexts = 4;
/** Milliseconds in which a command that is asked to end may end by itself. */
const patienceMs = 3000;
/** Characters of what a command says on its way to an error. */
const longestError = 4000;

/** The texts of one server. */
export class Generator {
  readonly #running = new Set<ChildProcess>();
  /** Requests that will be texts: they are counted before anything is waited for. */
  #pending = 0;

  constructor(
    private readonly studio: Studio,
    private readonly options: {
      readonly folder: string;
      readonly program?: readonly [string, ...string[]] | undefined;
    },
  ) {}

  /**
   * Makes a text and passes its lines on; the last one, `{"type":"end"}`, says how the command has ended. Throws
   * inputError for a model that is not there, for models that do not fit in memory, and where too much runs already.
   */
  async write(asked: TextAsked, response: ServerResponse): Promise<void> {
    if (this.#running.size + this.#pending >= mostTexts)
      throw inputError(`${mostTexts} texts are being made already`, { hint: "wait for one, or stop it" });
    this.#pending++;
    const words = await this.#wordsOf(asked).finally(() => this.#pending--);
    // Whoever has gone away meanwhile is told nothing, and ends nothing.
    if (response.destroyed) return;
    const [program, ...first] = this.options.program ?? ownProgram;
    const child = spawn(program, [...first, ...words.slice(1)], {
      cwd: this.options.folder,
      stdio: ["ignore", "pipe", "pipe"],
    });
    await this.#passOn(child, response);
  }

  /** Ends all. */
  close(): void {
    for (const child of this.#running) child.kill("SIGKILL");
  }

  async #wordsOf(asked: TextAsked): Promise<readonly string[]> {
    const names = [asked.model, ...(asked.beside === undefined ? [] : [asked.beside])];
    requireMemory(await Promise.all(names.map((name) => this.#specOf(name))));
    const { threads } = (await this.studio.answer("/api/checkpoints", new URLSearchParams())) as {
      readonly threads: number;
    };
    return textWords(asked, pathBelow(this.studio.options.dir, asked.model), threads);
  }

  async #specOf(name: string): Promise<NamedSpec> {
    const spec = this.studio.index.found.checkpoints.includes(name) ? await specIn(this.studio.index, name) : null;
    if (spec === null) throw inputError("there is no model of this name", { where: name });
    return { name, spec };
  }

  async #passOn(child: ChildProcess, response: ServerResponse): Promise<void> {
    this.#running.add(child);
    response.writeHead(200, {
      ...safeHeaders,
      "content-type": "application/x-ndjson; charset=utf-8",
      "cache-control": "no-store",
    });
    let said = "";
    child.stderr?.on("data", (chunk: Buffer) => {
      said = (said + chunk.toString("utf8")).slice(-longestError);
    });
    child.stdout?.pipe(response, { end: false });
    response.on("close", () => endOf(child));
    const { code, error } = await new Promise<{ readonly code: number | null; readonly error: string | null }>(
      (done) => {
        child.on("error", (cause) => done({ code: null, error: cause.message }));
        child.on("close", (exit) => done({ code: exit, error: null }));
      },
    );
    this.#running.delete(child);
    const why = code === 0 ? null : (error ?? errorIn(said) ?? `it ended with exit code ${code ?? "–"}`);
    if (!response.destroyed) response.end(`${JSON.stringify({ type: "end", exitCode: code, error: why })}\n`);
  }
}

/** The line of what a command has said that tells why it failed; null where it has said nothing. */
function errorIn(said: string): string | null {
  const lines = said.split("\n").filter((line) => line.trim() !== "");
  const line = lines.findLast((one) => one.startsWith("upcycle: ")) ?? lines.at(-1);
  return line === undefined ? null : visibleLine(line, longestError);
}

/** Asks a command to end, and ends it if it does not. */
function endOf(child: ChildProcess): void {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill("SIGINT");
  const timer = setTimeout(() => child.kill("SIGKILL"), patienceMs);
  timer.unref();
  child.on("exit", () => clearTimeout(timer));
}
