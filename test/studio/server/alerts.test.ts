/** Every kind of alert, from the log to the page, the terminal and the webhook, over real connections. */
import { appendFileSync, utimesSync, writeFileSync } from "node:fs";
import { createServer, get, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { alertWords } from "../../../src/cli/studio.js";
import { lockName } from "../../../src/files/io/lock.js";
import { metricsFile, type StepRecord } from "../../../src/train/records.js";
import type { Overview, StudioAlert } from "../../../src/studio/data/types.js";
import { startServer, type StudioServer } from "../../../src/studio/server/server.js";
import { Studio } from "../../../src/studio/server/studio.js";
import { temporaryFolder } from "../../files/io/temporary.js";
import { addLines, evalRecord, linesOf, stepRecord, writeRun } from "../folder.js";

const disk = vi.hoisted(() => ({ isFull: false }));
vi.mock(import("node:fs/promises"), async (original) => {
  const fs = await original();
  const full = { bavail: 25, bsize: 4096, blocks: 1e6 };
  return { ...fs, statfs: ((path: string) => (disk.isFull ? Promise.resolve(full) : fs.statfs(path))) as never };
});

const dir = temporaryFolder();
const settings = { kind: "moe", steps: 100, done: 20 } as const;
const step = (at: number, changes: Partial<StepRecord> = {}): StepRecord => ({
  ...stepRecord(at, settings),
  ...changes,
});
const kinds = ["collapse", "disk", "divergence", "nan", "slow", "stall", "unseen-collapse"];

describe("alerts", () => {
  let server: StudioServer;
  let receiver: Server;
  let isBegun = false;
  const posted: string[] = [];
  const printed: StudioAlert[] = [];
  let events = "";
  let cookie = "";

  const kindsOf = (list: readonly { readonly kind: string }[]): string[] =>
    [...new Set(list.map(({ kind }) => kind))].sort();
  const shown = (): StudioAlert[] =>
    [...events.matchAll(/^event: alert\ndata: (.*)$/gm)].map(([, data]) => JSON.parse(data!) as StudioAlert);
  const until = async (what: () => boolean): Promise<void> => {
    const end = Date.now() + 20_000;
    while (!what() && Date.now() < end) await new Promise((done) => setTimeout(done, 50));
  };

  beforeAll(async () => {
    receiver = createServer((request, response) => {
      let body = "";
      request.on("data", (chunk: Buffer) => (body += chunk.toString("utf8")));
      request.on("end", () => {
        posted.push((JSON.parse(body) as { kind: string }).kind);
        response.end();
      });
    });
    await new Promise<void>((done) => receiver.listen(0, "127.0.0.1", done));
    for (const name of ["a", "silent"]) {
      writeRun(join(dir, name), settings);
      // Of a process that is there, and another than the studio's.
      writeFileSync(join(dir, name, lockName), String(process.ppid));
    }
    server = await startServer({
      studio: await Studio.open({ dir, actions: false }),
      assets: { script: "", style: "", planner: () => Promise.resolve("") },
      port: null,
      folder: dir,
      webhook: `http://127.0.0.1:${(receiver.address() as AddressInfo).port}/hook`,
      onChange: ({ alerts, tree }) => {
        isBegun ||= tree;
        printed.push(...alerts);
      },
    });
    await new Promise<void>((done) =>
      get(server.url, (response) => {
        cookie = response.headers["set-cookie"]![0]!.split(";")[0]!;
        response.resume().on("end", done);
      }),
    );
    get(`http://127.0.0.1:${server.port}/api/events`, { headers: { cookie } }, (response) =>
      response.on("data", (chunk: Buffer) => (events += chunk.toString("utf8"))),
    ).on("error", () => undefined);
    await until(() => isBegun);
  }, 30_000);
  afterAll(async () => {
    await server.close();
    receiver.closeAllConnections();
    receiver.close();
  });

  it("of every kind are shown, printed and sent, each kind of a run once", async () => {
    expect([printed, posted]).toEqual([[], []]);
    const few = { entropy: [1, 1], maxViolation: [3, 0], dead: [[0, 1, 2], []] };
    addLines(
      join(dir, "a"),
      step(21, { loss: null as never }),
      step(22, { loss: 9 }),
      ...[23, 24, 25, 26, 27, 28, 29, 30, 31].map((at) => step(at, { ms: 600 })),
      step(32, { ms: 600, routing: few }),
      { ...evalRecord(32, settings), unseenCollapse: { layers: [0], balanceLoss: 2, balanced: 2 } },
    );
    disk.isFull = true;
    // A log that was last written long ago, by a process that still is there. A look between the lines sees another.
    let at = 20;
    await until(() => {
      const log = join(dir, "silent", metricsFile);
      appendFileSync(log, linesOf([step(++at)]));
      utimesSync(log, new Date(0), new Date(Date.now() - 3_600_000));
      return kindsOf(shown()).length === kinds.length && new Set(posted).size === kinds.length;
    });
    expect(kindsOf(shown())).toEqual(kinds);
    expect(kindsOf(printed)).toEqual(kinds);
    expect(posted.sort()).toEqual(kinds);
    const overview = await new Promise<Overview>((done) =>
      get(`http://127.0.0.1:${server.port}/api/overview`, { headers: { cookie } }, (response) => {
        let body = "";
        response.on("data", (chunk: Buffer) => (body += chunk.toString("utf8")));
        response.on("end", () => done(JSON.parse(body) as Overview));
      }),
    );
    expect(kindsOf(overview.alerts)).toEqual(kinds);
  }, 30_000);

  it("are printed in one line that says which run, where and what", () => {
    const words = new Map(printed.map((alert) => [alert.kind, alertWords(alert)]));
    expect(words.get("nan")).toBe("error: a: step 21: the loss is not a number");
    expect(words.get("collapse")).toBe("error: a: step 32: MoE layer 0: 3 of 4 experts get hardly any token");
    expect(words.get("disk")).toMatch(/^(error|warning): .*0 MB are free/);
    expect(words.get("stall")).toMatch(/^\w+: silent: /);
  });
});
