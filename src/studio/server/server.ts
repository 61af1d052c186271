/** The server of the studio: on loopback only, for one token, with nothing between a request and the guard's rules. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { z } from "zod";
import { inputError, stopError, UpcycleError } from "../../base/errors.js";
import type { RunList } from "../data/types.js";
import { commandFor } from "../folders/detail.js";
import { Actions, actionSchema } from "./actions.js";
import { EventHub } from "./events.js";
import { Generator, textSchema } from "./generator.js";
import { cookieHeader, judge, newToken, pageHeaders, reportHeaders, safeHeaders, type GuardOptions } from "./guard.js";
import { contentName, livePage, type PageAssets } from "./page.js";
import type { FoundCommand } from "./noted.js";
import { bodyOf, json, JsonText, refuse, sendFile, sendJson, staticFile, type StaticFile } from "./replies.js";
import type { Studio } from "./studio.js";
import { watch, type WatchOptions } from "./watching.js";

/** Where the search for a free port begins, and how many are tried. */
export const firstPort = 7007;
const mostPorts = 50;
/** Answers that one request may ask for. */
const mostTogether = 64;

/** What a server is made of. */
export interface ServerOptions extends WatchOptions {
  readonly assets: PageAssets;
  /** A port, or null for the first that is free. */
  readonly port: number | null;
  /** Working folder of commands that the page starts. */
  readonly folder: string;
  /** What starts commands in place of this program, for tests. */
  readonly program?: readonly [string, ...string[]];
}

/** A server that answers. */
export interface StudioServer {
  readonly port: number;
  /** The address with the token, which makes whoever opens it known. */
  readonly url: string;
  readonly actions: Actions;
  /** Ends connections and commands. */
  close(): Promise<void>;
}

/** Starts a server. Throws inputError for a port that is taken, stopError where none is free. */
export async function startServer(options: ServerOptions): Promise<StudioServer> {
  const { studio } = options;
  // Whoever opens a page does not wait for a look that is due while nobody listens.
  const hub = new EventHub(() => watching.wake());
  const token = newToken();
  const actions = new Actions({
    root: studio.index.root,
    folder: options.folder,
    noted: (name) => notedCommand(studio, name),
    onChange: throttled(() => hub.send("actions", {}), 250),
    ...(options.program === undefined ? {} : { program: options.program }),
  });
  const generator = new Generator(studio, { folder: options.folder, program: options.program });
  const guard = { token, cookie: "", actions: studio.options.actions };
  const server = createServer({ maxHeaderSize: 32_768, headersTimeout: 10_000, requestTimeout: 30_000 });
  const port = await listen(server, options.port);
  guard.cookie = `upcycle-studio-${port}`;
  const desk = new Desk({ ...options, hub, actions, generator, guard });
  server.on("request", (request, response) => void desk.serve(request, response));
  server.on("clientError", (_, socket) => socket.destroy());
  const watching = watch(options, hub);
  return {
    port,
    url: `http://127.0.0.1:${port}/?token=${token}`,
    actions,
    close: async () => {
      watching.stop();
      hub.close();
      generator.close();
      server.closeAllConnections();
      await Promise.all([actions.close(), watching.ended, new Promise((done) => server.close(done))]);
    },
  };
}

/** The command that was noted for a run, a study or a conversion; null for any other word. */
async function notedCommand(studio: Studio, name: string): Promise<FoundCommand | null> {
  const conversion = (await studio.conversions()).find((one) => one.name === name);
  if (conversion !== undefined) return conversion.command && { ...conversion.command, holder: null };
  const isKnown = studio.index.run(name) !== undefined || studio.index.found.studies.includes(name);
  return isKnown ? commandFor(studio.index, name) : null;
}

async function listen(server: Server, wanted: number | null): Promise<number> {
  const ports = wanted === null ? Array.from({ length: mostPorts }, (_, i) => firstPort + i) : [wanted];
  for (const port of ports) {
    const failure = await new Promise<NodeJS.ErrnoException | null>((done) => {
      server.once("error", done);
      server.listen(port, "127.0.0.1", () => {
        server.off("error", done);
        done(null);
      });
    });
    if (failure === null) return (server.address() as AddressInfo).port;
    if (failure.code !== "EADDRINUSE" && failure.code !== "EACCES")
      throw stopError(`the server cannot listen (${failure.message})`, { cause: failure });
    if (wanted !== null)
      throw inputError(`port ${wanted} is ${failure.code === "EACCES" ? "not allowed" : "taken"}`, {
        where: "--port",
        hint: "leave --port out for the first free one",
      });
  }
  throw stopError(`no port from ${firstPort} to ${firstPort + mostPorts - 1} is free`, {
    hint: "name one with --port",
  });
}

/** Calls at most once in so many milliseconds, and once more at the end. */
function throttled(call: () => void, every: number): () => void {
  let timer: NodeJS.Timeout | null = null;
  return () => {
    timer ??= setTimeout(() => {
      timer = null;
      call();
    }, every);
    timer.unref();
  };
}

interface DeskOptions extends ServerOptions {
  readonly hub: EventHub;
  readonly actions: Actions;
  readonly generator: Generator;
  readonly guard: GuardOptions;
}

/** Answers requests that the guard lets pass. */
class Desk {
  readonly #options: DeskOptions;
  readonly #files: ReadonlyMap<string, StaticFile>;
  /** The list of runs as it was sent last: every page begins with it, and mostly it is as it was. */
  #list: { readonly list: RunList; readonly text: JsonText } | null = null;

  constructor(options: DeskOptions) {
    this.#options = options;
    const { assets, studio } = options;
    const page = livePage(studio.options.dir, assets);
    const script = staticFile(assets.script, {
      ...safeHeaders,
      "content-type": "text/javascript; charset=utf-8",
      "cache-control": "private, max-age=31536000, immutable",
    });
    this.#files = new Map([
      [
        "/",
        staticFile(page.html, {
          ...pageHeaders(page.style),
          "content-type": "text/html; charset=utf-8",
          "cache-control": "no-store",
        }),
      ],
      [`/${contentName("studio.js", assets.script)}`, script],
    ]);
  }

  /** Answers a request, whatever it is. */
  async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = "", url = "", headers } = request;
    const verdict = judge({ method, url, headers }, this.#options.guard);
    response.on("error", () => undefined);
    try {
      if (verdict.kind === "refused") return refuse(response, verdict.status, verdict.why);
      if (verdict.kind === "welcome") {
        response.writeHead(303, {
          ...safeHeaders,
          location: "/",
          "set-cookie": cookieHeader(this.#options.guard),
          "cache-control": "no-store",
        });
        response.end();
        return;
      }
      if (method === "POST") return await this.#act(verdict.path, request, response);
      await this.#show(verdict.path, verdict.query, request, response);
    } catch (cause) {
      if (response.headersSent) response.destroy();
      else if (cause instanceof UpcycleError)
        json(request, response, { error: cause.line }, cause.kind === "input" ? 400 : 500);
      else json(request, response, { error: "this could not be answered; it is a defect" }, 500);
    }
  }

  async #show(path: string, query: URLSearchParams, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { studio, actions } = this.#options;
    const file = this.#files.get(path);
    if (file !== undefined) return sendFile(request, response, file);
    if (path === "/api/events") return this.#listen(request, response, query.get("seen"));
    if (path === "/api/actions")
      return json(request, response, { allowed: studio.options.actions, actions: actions.list });
    if (path === "/api/several") return json(request, response, await this.#several(query.getAll("ask")));
    if (path === "/report") {
      await studio.index.known();
      const page = await studio.shelf.page(query.get("name") ?? "");
      if (page === null) return refuse(response, 404, "there is no such page");
      response.writeHead(200, {
        ...reportHeaders,
        "content-type": "text/html; charset=utf-8",
        "cache-control": "no-store",
      });
      response.end(request.method === "HEAD" ? undefined : page);
      return;
    }
    const answer = await studio.answer(path, query);
    if (answer === null) return json(request, response, { error: "there is nothing of this name" }, 404);
    if (path === "/api/runs") await sendJson(request, response, this.#listText(answer as RunList), 200);
    else json(request, response, answer);
  }

  /** Answers to questions that were asked together, or in place of one why there is none. */
  async #several(asked: readonly string[]): Promise<unknown[]> {
    if (asked.length > mostTogether)
      throw inputError(`${asked.length} answers are asked for, ${mostTogether} are the most`, { where: "ask" });
    const answers: unknown[] = [];
    for (const address of asked) {
      const [path = "", search = ""] = address.split(/\?(.*)/s, 2);
      const answer = await this.#options.studio.answer(path, new URLSearchParams(search)).catch((cause: unknown) => {
        if (cause instanceof UpcycleError) return { error: cause.line };
        throw cause;
      });
      answers.push(answer ?? { error: "there is nothing of this name" });
    }
    return answers;
  }

  #listText(list: RunList): JsonText {
    // A row that changes is another one.
    const isSame = ({ unread, runs }: RunList): boolean =>
      unread === list.unread && runs.length === list.runs.length && runs.every((row, i) => row === list.runs[i]);
    if (this.#list === null || !isSame(this.#list.list)) this.#list = { list, text: new JsonText(list) };
    return this.#list.text;
  }

  /** `seen` is the last event that a page has seen which has not listened since; browsers say it by a header. */
  #listen(request: IncomingMessage, response: ServerResponse, seen: string | null): void {
    if (request.method === "HEAD") return refuse(response, 405, "events are read by GET");
    const lastSeen = request.headers["last-event-id"];
    response.writeHead(200, {
      ...safeHeaders,
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-store",
    });
    request.socket.setTimeout(0);
    const last = typeof lastSeen === "string" ? lastSeen : (seen ?? undefined);
    if (!this.#options.hub.listen(response, last)) response.end();
  }

  async #act(path: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { studio, actions, generator } = this.#options;
    const body = await bodyOf(request);
    if (path === "/api/actions/stop") {
      const id = (body as { readonly id?: unknown } | null)?.id;
      const isStopped = typeof id === "number" && actions.stop(id);
      return json(
        request,
        response,
        isStopped ? { stopped: id } : { error: "no command of this number runs" },
        isStopped ? 200 : 404,
      );
    }
    if (path === "/api/generate") {
      await studio.index.known();
      return generator.write(requestOf(textSchema, body), response);
    }
    if (path !== "/api/actions/start" && path !== "/api/actions/words")
      return json(request, response, { error: "there is nothing of this name" }, 404);
    const wanted = requestOf(actionSchema, body);
    if (path === "/api/actions/words") return json(request, response, await actions.wordsOf(wanted));
    json(request, response, await actions.start(wanted));
  }
}

/** A request to act, as a schema has it. Throws inputError that says what is wrong with it. */
function requestOf<T>(schema: z.ZodType<T>, body: unknown): T {
  const parsed = schema.safeParse(body);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw inputError(issue?.message ?? "this is no request", { where: issue?.path.join(".") || "request" });
}
