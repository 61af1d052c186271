/** The server over real connections, within this process. */
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { request, type IncomingMessage } from "node:http";
import { connect } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { randomStream } from "../../../src/base/random.js";
import { startServer, type StudioServer } from "../../../src/studio/server/server.js";
import { Studio } from "../../../src/studio/server/studio.js";
import type { StartedAction } from "../../../src/studio/data/command-types.js";
import { temporaryFolder } from "../../files/io/temporary.js";
import { addLines, stepRecord, tinyConfig, writeConversion, writeModels, writeStudy } from "../folder.js";

const root = temporaryFolder();
const dir = join(root, "runs");
const secret = "the secret outside";
const assets = { script: "console.log('page')", style: "body{}", planner: () => Promise.resolve("") };
let server: StudioServer;
let acting: StudioServer;
let cookie = "";

/** A program that says its words, and ends when it is asked to. */
const program = join(root, "program.mjs");

beforeAll(async () => {
  mkdirSync(dir);
  writeStudy(dir);
  writeModels(dir);
  // A model that fits nowhere, and what two conversions have left that were killed.
  const huge = { ...tinyConfig("llama"), hidden_size: 16_384, intermediate_size: 65_536, num_hidden_layers: 400 };
  mkdirSync(join(dir, "huge"));
  writeFileSync(join(dir, "huge", "config.json"), JSON.stringify(huge));
  for (const [name, out] of Object.entries({ left: "left", sly: "../elsewhere" })) {
    const words = ["upcycle", "convert", "dense", "--recipe", "E8G1T2", "--out", out];
    writeConversion(dir, name, { pid: 2 ** 22 + 1, command: { words, folder: dir } });
    mkdirSync(join(dir, `.${name}.unfinished`));
  }
  writeFileSync(join(root, "secret.txt"), secret);
  writeFileSync(
    program,
    'console.log("words", ...process.argv.slice(2)); console.error("\\u001b[31mred");' +
      'if (process.argv[2] === "train") { const timer = setInterval(() => {}, 1000); process.on("SIGINT", () => { console.log("saved"); clearInterval(timer); process.exitCode = 130; }); console.log("ready"); }',
  );
  const studio = await Studio.open({ dir, actions: false });
  server = await startServer({ studio, assets, port: null, folder: root });
  cookie = await cookieOf(server);
  const other = await Studio.open({ dir, actions: true });
  acting = await startServer({ studio: other, assets, port: null, folder: root, program: [process.execPath, program] });
});
afterAll(async () => {
  await server.close();
  await acting.close();
});

interface Answer {
  readonly status: number;
  readonly headers: IncomingMessage["headers"];
  readonly body: string;
}

function fetched(
  of: StudioServer,
  path: string,
  headers: Record<string, string> = {},
  { method = "GET", body }: { method?: string; body?: string } = {},
): Promise<Answer> {
  return new Promise((done, failed) => {
    const asked = request({ host: "127.0.0.1", port: of.port, path, method, headers }, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("end", () =>
        done({
          status: response.statusCode ?? 0,
          headers: response.headers,
          body: Buffer.concat(chunks).toString("utf8"),
        }),
      );
    });
    asked.on("error", failed);
    asked.end(body);
  });
}

async function cookieOf(of: StudioServer): Promise<string> {
  const { status, headers } = await fetched(of, new URL(of.url).search === "" ? "/" : `/${new URL(of.url).search}`);
  expect([status, headers.location]).toEqual([303, "/"]);
  const [set = ""] = headers["set-cookie"] ?? [];
  expect(set).toMatch(/^upcycle-studio-\d+=[\w-]{32}; HttpOnly; SameSite=Strict; Path=\/$/);
  return set.split(";")[0]!;
}

const get = (path: string, headers: Record<string, string> = {}): Promise<Answer> =>
  fetched(server, path, { cookie, ...headers });

async function until(isThere: () => boolean): Promise<void> {
  const end = Date.now() + 10_000;
  while (!isThere()) {
    if (Date.now() > end) throw new Error("it did not come");
    await new Promise((done) => setTimeout(done, 20));
  }
}

/** Everything below a folder with sizes, times and content. */
function picture(folder: string): string {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .sort()
    .map((name) => {
      const info = statSync(join(folder, name));
      return `${name} ${info.size} ${info.mtimeMs} ${info.isFile() ? readFileSync(join(folder, name), "latin1") : ""}`;
    })
    .join("\n");
}

describe("the server", () => {
  it("listens on loopback alone and sends its page with rules that let nothing else be loaded", async () => {
    const { status, headers, body } = await get("/");
    expect(status).toBe(200);
    const [, style = ""] = /<style>([\s\S]*)<\/style>/.exec(body) ?? [];
    const hash = createHash("sha256").update(style).digest("base64");
    expect(style).toBe(assets.style);
    expect(headers["content-security-policy"]).toContain(
      `default-src 'none'; script-src 'self'; style-src 'sha256-${hash}'; img-src`,
    );
    expect(headers["content-security-policy"]).not.toMatch(/unsafe|\*|https?:/);
    expect(headers).toMatchObject({
      "x-content-type-options": "nosniff",
      "referrer-policy": "no-referrer",
      "cache-control": "no-store",
    });
    const [script = ""] = /\/studio\.[0-9a-f]{12}\.js/.exec(body) ?? [];
    const sent = await get(script);
    expect([sent.body, sent.headers["cache-control"]]).toEqual([assets.script, "private, max-age=31536000, immutable"]);
    expect((await fetched(server, script)).status).toBe(401);
  });

  it("answers with JSON, and with 404 and 400 where there is nothing or it is not understood", async () => {
    expect(JSON.parse((await get("/api/runs")).body)).toMatchObject({
      runs: expect.arrayContaining([expect.objectContaining({ name: "alone" })]),
    });
    expect((await get("/api/run?name=nobody")).status).toBe(404);
    expect((await get("/api/nothing")).status).toBe(404);
    const bad = await get("/api/curves?metric=%3Cscript%3E");
    expect([bad.status, bad.headers["content-type"]]).toEqual([400, "application/json; charset=utf-8"]);
    expect((await get("/api/runs", { "accept-encoding": "gzip" })).headers["content-encoding"]).toBe("gzip");
    expect((await get("/api/runs")).headers["content-encoding"]).toBeUndefined();
  });

  it("answers several questions at once, each as if it had been asked alone", async () => {
    const asked = ["/api/curves?run=alone&metric=train/loss", "/api/run?name=nobody", "/api/curves?metric=what", "/x"];
    const path = (list: readonly string[]): string =>
      `/api/several?${list.map((address) => `ask=${encodeURIComponent(address)}`).join("&")}`;
    const answers = JSON.parse((await get(path(asked))).body) as unknown[];
    const alone = await Promise.all(asked.map(async (address) => JSON.parse((await get(address)).body) as unknown));
    expect(answers.slice(0, 3)).toEqual(alone.slice(0, 3));
    expect(answers[3]).toEqual({ error: "there is nothing of this name" });
    expect(JSON.parse((await get(path(["/api/several?ask=/api/runs"]))).body)).toEqual([answers[3]]);
    expect((await get(path(Array<string>(65).fill("/x")))).status).toBe(400);
  });

  it("shows a page of the folder in an origin of its own, which may load nothing", async () => {
    const { status, headers } = await get("/report?name=study/report.html");
    expect(status).toBe(200);
    expect(headers["content-security-policy"]).toMatch(/^sandbox allow-scripts; default-src 'none'/);
    for (const name of ["../secret.txt", "study/study.json", "/etc/passwd", ""])
      expect((await get(`/report?name=${encodeURIComponent(name)}`)).status).toBe(404);
  });

  /** Writes a step of a run as soon as a page listens; when that page was told of it, and as which event. */
  const toldOf = (step: number): Promise<{ readonly id: string; readonly took: number }> =>
    new Promise((done, failed) => {
      const asked = request(
        { host: "127.0.0.1", port: server.port, path: "/api/events", headers: { cookie } },
        (response) => {
          let text = "";
          let written = 0;
          const told = new RegExp(`id: (\\d+)\nevent: rows\ndata: .*"name":"alone".*"step":${step}`);
          response.on("data", (chunk: Buffer) => {
            text += chunk.toString("utf8");
            if (written === 0 && text.includes("event: hello")) {
              written = performance.now();
              addLines(join(dir, "alone"), stepRecord(step, { steps: 40 }));
            }
            const [, id] = told.exec(text) ?? [];
            if (id === undefined) return;
            asked.destroy();
            done({ id, took: performance.now() - written });
          });
        },
      );
      asked.on("error", failed);
      asked.end();
    });

  /** What a page hears that has heard all up to `last`: up to `awaited`, or until it is quiet where that is null. */
  const heardAfter = (last: string, awaited: string | null, isByHeader = true): Promise<string> =>
    new Promise((done) => {
      const [path, more] = isByHeader ? ["/api/events", { "last-event-id": last }] : [`/api/events?seen=${last}`, {}];
      const asked = request(
        { host: "127.0.0.1", port: server.port, path, headers: { cookie, ...more } },
        (response) => {
          let text = "";
          const end = (): void => {
            clearTimeout(timer);
            asked.destroy();
            done(text);
          };
          let timer = setTimeout(end, 10_000);
          response.on("data", (chunk: Buffer) => {
            text += chunk.toString("utf8");
            if (awaited !== null && text.includes(awaited)) end();
            if (awaited !== null) return;
            clearTimeout(timer);
            timer = setTimeout(end, 150);
          });
        },
      );
      asked.on("error", () => undefined);
      asked.end();
    });

  it("tells of a new point within a second, and of what a page has missed", async () => {
    let step = 13;
    let seen = await toldOf(step);
    // A machine that is busy with other things may be late for one point, hardly for each of three.
    while (seen.took >= 1000 && step < 15) seen = await toldOf(++step);
    expect(seen.took).toBeLessThan(1000);
    const missed = `"step":${step}`;
    expect(await heardAfter(String(Number(seen.id) - 1), missed)).toContain(missed);
    expect(await heardAfter(String(Number(seen.id) - 1), missed, false)).toContain(missed);
    expect(await heardAfter("999999", "event: reset")).toContain("event: reset");
    expect(await heardAfter(seen.id, null)).not.toContain("event: rows");
  });

  it("shows nothing outside of the folder and changes nothing, whatever is sent to it", async () => {
    const before = picture(dir);
    const random = randomStream(3, "hostile");
    const pick = (i: number, words: readonly string[]): string =>
      words[Math.floor(random.uniformAt(i) * words.length)]!;
    const paths = [
      "/../secret.txt",
      "/%2e%2e/secret.txt",
      "/report?name=../secret.txt",
      "/report?name=%2e%2e%2fsecret.txt",
      "/api/run?name=..",
      "/api/run?name=%00",
      "//",
      "/api/curves?run=alone&columns=1e99&from=-1e308&to=1e308",
      "/api/curves?run=alone&columns=-1",
      "/api/expert-file?name=../secret.txt",
      "/api/model?name=/",
      "/api/events/x",
      `/${"a".repeat(20_000)}`,
      "/api/actions/start",
      "/api/generate",
      "/api/conversions?name=../secret.txt",
      "/api/checkpoints",
      "/api/coactivation?name=../secret.txt&layer=-1",
      "/api/coactivation?name=study/arms/coarse/seed-0-0123456789abcdef&layer=1e308",
      "*",
      "/api/compare?run=alone&run=alone",
    ];
    const hosts = ["127.0.0.1", "evil.example", "localhost:1", ""];
    const statuses = new Map<number, number>();
    // Ten thousand are sent by bench/studio-hostile.mjs; these are enough for every path, host, method and body.
    const [batches, together] = [60, 8];
    for (let i = 0; i < batches; i++) {
      const batch = Array.from({ length: together }, (_, j) => {
        const at = 16 * (together * i + j);
        const headers: Record<string, string> = {
          host: pick(at, hosts),
          ...(random.uniformAt(at + 1) < 0.6 && { cookie }),
          ...(random.uniformAt(at + 2) < 0.3 && {
            origin: pick(at + 3, ["http://evil.example", "http://127.0.0.1", "null"]),
          }),
          ...(random.uniformAt(at + 4) < 0.3 && { "last-event-id": "x" }),
          "content-type": pick(at + 5, ["application/json", "text/plain"]),
        };
        const method = pick(at + 6, ["GET", "GET", "GET", "POST", "PUT", "HEAD", "DELETE"]);
        const body =
          method === "POST"
            ? pick(at + 7, [
                "",
                "{",
                '{"command":"train","file":"-x"}',
                '{"model":"../..","prompt":"x","seed":0,"temperature":0,"maxTokens":1}',
                "[".repeat(5000),
                "x".repeat(70_000),
              ])
            : undefined;
        return fetched(server, pick(at + 8, paths), headers, { method, ...(body !== undefined && { body }) }).catch(
          () => null,
        );
      });
      for (const answer of await Promise.all(batch)) {
        if (answer === null) continue;
        statuses.set(answer.status, (statuses.get(answer.status) ?? 0) + 1);
        expect(answer.body).not.toContain(secret);
        expect(answer.status === 500, answer.body).toBe(false);
      }
    }
    expect(picture(dir)).toBe(before);
    expect((await get("/api/runs")).status).toBe(200);
    // Some requests came through to an answer, others were turned away at each rule.
    for (const status of [200, 401, 403, 404, 421])
      expect(statuses.get(status) ?? 0, String(status)).toBeGreaterThan(0);
  }, 120_000);

  it("stays up with connections that say nothing, half of something, or no HTTP, and that read nothing", async () => {
    const sockets = [
      "",
      "GET /",
      "GET / HTTP/1.1\r\nHost: ",
      "\u0000\u0001nonsense\r\n\r\n",
      "POST /api/actions/start HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n",
    ].map((text) => {
      const socket = connect(server.port, "127.0.0.1", () => socket.write(text));
      return socket.on("error", () => undefined);
    });
    const slow = connect(server.port, "127.0.0.1", () =>
      slow.write(`GET /api/events HTTP/1.1\r\nHost: localhost\r\nCookie: ${cookie}\r\n\r\n`),
    );
    slow.pause();
    await new Promise((done) => setTimeout(done, 50));
    expect((await get("/api/runs")).status).toBe(200);
    for (const socket of [...sockets, slow]) socket.destroy();
  });

  it("says which port is taken", async () => {
    const studio = await Studio.open({ dir, actions: false });
    await expect(startServer({ studio, assets, port: server.port, folder: root })).rejects.toMatchObject({
      kind: "input",
      message: `port ${server.port} is taken`,
    });
  });
});

describe("texts that the page asks for", () => {
  const asked = { model: "models/moe", prompt: "--out", seed: 3, temperature: 0.5, maxTokens: 7 };
  const post = async (body: unknown, of = acting): Promise<Answer> =>
    fetched(
      of,
      "/api/generate",
      {
        cookie: of === acting ? await cookieOf(acting) : cookie,
        origin: `http://127.0.0.1:${of.port}`,
        host: `127.0.0.1:${of.port}`,
        "content-type": "application/json",
      },
      { method: "POST", body: JSON.stringify(body) },
    );

  it("are lines of upcycle generate as they come, with its end", async () => {
    const { status, headers, body } = await post(asked);
    expect([status, headers["content-type"]]).toEqual([200, "application/x-ndjson; charset=utf-8"]);
    const { threads } = JSON.parse((await get("/api/checkpoints")).body) as { threads: number };
    expect(body.trim().split("\n")).toEqual([
      `words generate ${dir}/models/moe --prompt --out --seed 3 --temperature 0.5 --max-new-tokens 7 ` +
        `--threads ${threads} --device cpu --alternatives 8 --experts --stream --json`,
      '{"type":"end","exitCode":0,"error":null}',
    ]);
  });

  it.each([
    [{ ...asked, model: "../outside" }, "no model of this name"],
    [{ ...asked, model: "study" }, "no model of this name"],
    [{ ...asked, beside: "/etc" }, "no model of this name"],
    [{ ...asked, prompt: "a\0b" }, "no command line can hold"],
    [{ ...asked, prompt: "" }, "prompt"],
    [{ ...asked, prompt: "x".repeat(20_001) }, "prompt"],
    [{ ...asked, maxTokens: 1e6 }, "maxTokens"],
    [{ ...asked, temperature: -1 }, "temperature"],
    [{ ...asked, seed: 0.5 }, "seed"],
    [{ ...asked, more: 1 }, "more"],
    [null, ""],
  ])("are refused where they are something else: %#", async (body, why) => {
    const { status, body: said } = await post(body);
    expect([status, said]).toEqual([400, expect.stringContaining(why)]);
  });

  it("are refused with the sum where models do not fit in memory together, before either is opened", async () => {
    const { status, body } = await post({ ...asked, beside: "huge" });
    expect(status).toBe(400);
    expect(body).toMatch(
      /models\/moe and huge: this takes [\d.]+ TB of memory, and there are [\d.]+ GB: .* \+ .* for the weights of huge in float32/,
    );
  });

  it("are none where commands are not allowed", async () => {
    expect((await post(asked, server)).status).toBe(403);
  });
});

describe("commands that the page starts", () => {
  const post = async (path: string, body: unknown, of = acting): Promise<Answer> =>
    fetched(
      of,
      path,
      {
        cookie: of === acting ? await cookieOf(acting) : cookie,
        origin: `http://127.0.0.1:${of.port}`,
        host: `127.0.0.1:${of.port}`,
        "content-type": "application/json",
      },
      { method: "POST", body: JSON.stringify(body) },
    );
  const list = (): readonly StartedAction[] => acting.actions.list;
  it("are none where that was not allowed", async () => {
    expect((await post("/api/actions/start", { command: "train", file: "a.yaml" }, server)).status).toBe(403);
  });

  it("are shown as the command line that they are, and run as that, below the folder", async () => {
    const wanted = { command: "convert", model: "my model", recipe: "E8G1T2", out: "runs/new" };
    const words = JSON.parse((await post("/api/actions/words", wanted)).body) as { words: string[] };
    expect(words).toEqual({
      words: ["upcycle", "convert", "my model", "--recipe", "E8G1T2", "--out", "runs/new"],
      folder: root,
    });
    const started = JSON.parse((await post("/api/actions/start", wanted)).body) as StartedAction;
    await until(() => list().some(({ id, state }) => id === started.id && state === "ended"));
    const { lines, exitCode } = list().find(({ id }) => id === started.id)!;
    expect([exitCode, [...lines].sort()]).toEqual([
      0,
      ["\\u001b[31mred", "words convert my model --recipe E8G1T2 --out runs/new"].sort(),
    ]);
  });

  it("save and stop when they are asked to", async () => {
    const started = JSON.parse(
      (await post("/api/actions/start", { command: "train", file: "t.yaml" })).body,
    ) as StartedAction;
    expect(started.words).toEqual(["upcycle", "train", "t.yaml", "--out", "runs/t"]);
    const now = (): StartedAction => list().find(({ id }) => id === started.id)!;
    await until(() => now().lines.includes("ready"));
    expect((await post("/api/actions/stop", { id: started.id })).status).toBe(200);
    await until(() => now().state === "ended");
    expect([now().exitCode, now().lines.at(-1)]).toEqual([130, "saved"]);
    expect((await post("/api/actions/stop", { id: started.id })).status).toBe(404);
  });

  it.each([
    [{ command: "train", file: "--out" }, "begins with a dash"],
    [{ command: "train", file: "a.yaml", out: "/tmp/elsewhere" }, "below the folder that is shown"],
    [{ command: "train", file: "a.yaml", out: "runs/../elsewhere" }, "below the folder that is shown"],
    [{ command: "convert", model: "m", recipe: "E8;rm", out: "runs/x" }, "no recipe"],
    [{ command: "prune", file: "x" }, "Invalid"],
    [{ command: "train", file: "a.yaml", more: 1 }, "more"],
    [{ command: "resume", run: "../alone" }, "no command was noted"],
    [{ command: "resume", run: "alone" }, "no command was noted"],
    [null, ""],
  ])("are refused where they are something else: %j", async (body, why) => {
    const count = list().length;
    const { status, body: said } = await post("/api/actions/start", body);
    expect(status).toBe(400);
    expect(said).toContain(why);
    expect(list()).toHaveLength(count);
  });

  it("are given again when they have ended, in the same words, and not before", async () => {
    const started = JSON.parse(
      (await post("/api/actions/start", { command: "eval", models: ["m"], tasks: ["arc_easy"] })).body,
    ) as StartedAction;
    await until(() => list().find(({ id }) => id === started.id)?.state === "ended");
    const again = JSON.parse(
      (await post("/api/actions/start", { command: "again", id: started.id })).body,
    ) as StartedAction;
    expect([again.words, again.folder]).toEqual([started.words, started.folder]);
    expect(again.id).toBeGreaterThan(started.id);
    expect((await post("/api/actions/start", { command: "again", id: 9999 })).status).toBe(400);
    await until(() => list().find(({ id }) => id === again.id)?.state === "ended");
  });

  it("go on with a conversion by the command that it has noted, if that writes below the folder", async () => {
    const asked = async (run: string): Promise<Answer> => post("/api/actions/words", { command: "resume", run });
    expect(JSON.parse((await asked("left")).body)).toEqual({
      words: ["upcycle", "convert", "dense", "--recipe", "E8G1T2", "--out", "left"],
      folder: dir,
    });
    expect((await asked("sly")).body).toContain("below the folder that is shown");
  });

  it("go on with a study by the command that was noted in its folder, and with nothing else that a folder names", async () => {
    const run = "study/arms/dense/seed-0-0123456789abcdef";
    expect(JSON.parse((await post("/api/actions/words", { command: "resume", run })).body)).toEqual({
      words: ["upcycle", "study", "my study.yaml", "--out", join(dir, "study")],
      folder: "/home/me",
    });
    writeFileSync(
      join(dir, "alone", "command.json"),
      JSON.stringify({ words: ["upcycle", "runs", "prune", "--all", "--yes"], folder: "/" }),
    );
    const { status, body } = await post("/api/actions/start", { command: "resume", run: "alone" });
    expect([status, body]).toEqual([400, expect.stringContaining("upcycle runs is not gone on with")]);
  });
});
