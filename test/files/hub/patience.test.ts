/** Hubs that never end: nothing waits for ever, nothing is read without end, and Ctrl-C ends everything. */
import { readFileSync, readdirSync } from "node:fs";
import { type IncomingMessage, type ServerResponse } from "node:http";
import { join } from "node:path";
import { createGzip } from "node:zlib";
import { describe, expect, it } from "vitest";
import { pauseIn } from "../../../src/files/hub/failures.js";
import {
  expectWhole,
  failure,
  get,
  host,
  hub,
  isFile,
  isInfo,
  isTree,
  json,
  notes,
  only,
  partial,
  repoDir,
  stranger,
  urlOf,
  weights,
  weightsChecksum,
  useHostileHub,
} from "./hostile-hub.js";
import { commit } from "./server.js";

useHostileHub();

describe("a server that does not end", () => {
  const quick = { stallMs: 200, attempts: 3 };

  it.each([
    ["never answers", isInfo, () => undefined],
    [
      "stops in the midst of an answer",
      isInfo,
      (_: IncomingMessage, response: ServerResponse) => void response.write('{"sha":'),
    ],
    [
      "stops in the midst of a list",
      isTree,
      (_: IncomingMessage, response: ServerResponse) => void response.write("["),
    ],
    ["never sends a file", isFile, () => undefined],
    [
      "stops in the midst of a file",
      isFile,
      (_: IncomingMessage, response: ServerResponse) =>
        void response.writeHead(200, { "content-length": weights.length }).write("w"),
    ],
  ])("but %s is tried again, which is said, and given up", async (_, which, handler) => {
    let requests = 0;
    hub.trouble.instead = only(which, (request, response) => {
      requests++;
      handler(request, response);
    });
    const error = await failure(get({ limits: quick }));
    expect([error.kind, error.line]).toEqual([
      "stopped",
      `hf://org/tiny: no answer from ${host()} for 0.20 s; run the same command later to go on`,
    ]);
    expect(notes.filter((note) => !note.includes("whole files only"))).toEqual(
      [2, 3].map((n) => `no answer from ${host()} for 0.20 s, trying again: ${n} of 3`),
    );
    expect(requests).toBe(3);
  });

  it("but answers byte by byte is given up after the time for one answer", async () => {
    hub.trouble.instead = only(isTree, (_, response) => {
      response.write("[");
      const timer = setInterval(() => response.write(" "), 10);
      response.on("close", () => clearInterval(timer));
    });
    expect((await failure(get({ limits: { attempts: 1, answerMs: 100 } }))).line).toContain(
      `${host()} takes more than 0.10 s for one answer`,
    );
  });

  it("but sends a file byte by byte is given up, what came being kept", async () => {
    hub.trouble.instead = only(isFile, (_, response) => {
      const timer = setInterval(() => response.write("w"), 10);
      response.on("close", () => clearInterval(timer));
    });
    const error = await failure(get({ limits: { attempts: 1, answerMs: 100, slowest: 10_000 } }));
    expect(error.line).toContain(
      `${host()} sends less than 10 kB a second of model.safetensors; run the same command to go on`,
    );
    expect(readFileSync(partial()).length).toBeGreaterThan(0);
  });

  it("but stalls in the midst of a file goes on from there", async () => {
    let stalls = 2;
    hub.trouble.instead = only(
      (request) => isFile(request) && stalls > 0,
      (request, response) => {
        stalls--;
        const from = Number(/=(\d+)-/.exec(request.headers.range ?? "")?.[1] ?? 0);
        response
          .writeHead(
            from === 0 ? 200 : 206,
            from === 0 ? {} : { "content-range": `bytes ${from}-${weights.length - 1}/${weights.length}` },
          )
          .write(weights.subarray(from, from + 50_000));
      },
    );
    expectWhole(await get({ limits: quick }));
    expect(
      hub.requests.filter((request) => request.includes("model.safetensors")).map((request) => request.split(" ")[2]),
    ).toEqual([undefined, `bytes=50000-${weights.length - 1}`, `bytes=100000-${weights.length - 1}`]);
  });

  it.each([
    ["always another page", (n: number) => `?cursor=${n}`, "12 pages"],
    ["the same page again", () => "", "1 pages"],
  ])("but lists %s is refused", async (_, query, words) => {
    let page = 0;
    hub.trouble.instead = only(isTree, (request, response) => {
      const cursor = query(++page);
      const path = cursor === "" ? urlOf(request) : urlOf(request).replace(/\?.*/, cursor);
      json(response, [], { link: `<${hub.endpoint}${path}>; rel="next"` });
    });
    expect((await failure(get({ limits: { pages: 12 } }))).line).toContain(
      `${host()} lists files without end (${words})`,
    );
  });

  it("but lists a million files is refused after as many as are taken", async () => {
    let page = 0;
    hub.trouble.instead = only(isTree, (_, response) => {
      const at = page++ * 1000;
      json(
        response,
        Array.from({ length: 1000 }, (__, i) => ({ type: "file", path: `f${at + i}`, size: 1, oid: "0".repeat(40) })),
        { link: `<${hub.endpoint}/api/models/org/tiny/tree/${commit}?cursor=${page}>; rel="next"` },
      );
    });
    expect((await failure(get({ limits: { files: 3500 } }))).line).toContain("the Hub lists more than 3500 files");
    expect(page).toBe(4);
  });

  it.each(["gzip", "identity"])(
    "but answers with 800 MB of JSON (%s) is refused after as many bytes as are taken",
    async (encoding) => {
      let sent = 0;
      hub.trouble.instead = only(isTree, (_, response) => {
        response.writeHead(200, { "content-type": "application/json", "content-encoding": encoding });
        const out = encoding === "gzip" ? createGzip() : response;
        if (out !== response) createGzipPipe(out as ReturnType<typeof createGzip>, response);
        const block = Buffer.alloc(1 << 20, " ");
        const pump = (): void => {
          while (sent < 800 && !response.destroyed) {
            sent++;
            if (!out.write(block)) return void out.once("drain", pump);
          }
          out.end();
        };
        pump();
      });
      expect((await failure(get())).line).toContain(`${host()} answers with more than 4.0 MB`);
      expect(sent).toBeLessThan(200);
    },
  );

  it("but sends more of a file than there is gets no more read, and what is wrong is removed", async () => {
    let sent = 0;
    hub.trouble.instead = only(isFile, (_, response) => {
      const block = Buffer.alloc(1 << 16, "x");
      const pump = (): void => {
        while (!response.destroyed) {
          sent++;
          if (!response.write(block)) return void response.once("drain", pump);
        }
      };
      pump();
    });
    expect((await failure(get())).line).toMatch(
      /model\.safetensors arrived damaged \(.*\), it was removed; run the same command/,
    );
    expect(notes).toEqual([expect.stringContaining("arrived damaged")]);
    expect(sent).toBeLessThan(1000);
    expect(readdirSync(join(repoDir(), "blobs")).filter((name) => name.startsWith(weightsChecksum))).toEqual([]);
  });

  it("but redirects for ever is left", async () => {
    let hops = 0;
    hub.trouble.instead = only(
      isInfo,
      (request, response) => void response.writeHead(302, { location: `${urlOf(request)}&n=${hops++}` }).end(),
    );
    expect((await failure(get())).line).toContain("sends the request from one address to the next, 10 times");
    expect(hops).toBe(11);
  });

  it.each([
    ["an answer", isInfo, () => undefined],
    [
      "the rest of a file",
      isFile,
      (_: IncomingMessage, response: ServerResponse) => void response.writeHead(200).write(weights.subarray(0, 1000)),
    ],
    [
      "another attempt",
      isInfo,
      (_: IncomingMessage, response: ServerResponse) => void response.writeHead(503, { "retry-after": "100" }).end(),
    ],
  ])("is left at once on Ctrl-C while waiting for %s", async (name, which, handler) => {
    const controller = new AbortController();
    hub.trouble.instead = only(which, (request, response) => {
      handler(request, response);
      setTimeout(() => controller.abort(), 100);
    });
    const error = await failure(get({ signal: controller.signal, limits: { stallMs: 60_000 } }));
    expect([error.kind, error.line]).toEqual([
      "interrupted",
      "hf://org/tiny: download stopped; run the same command to go on",
    ]);
    if (name === "the rest of a file") expect(readFileSync(partial()).length).toBe(1000);
  });

  it("is not asked at all after Ctrl-C", async () => {
    expect((await failure(get({ signal: AbortSignal.abort() }))).kind).toBe("interrupted");
    expect(hub.requests).toEqual([]);
  });

  it("need not be waited for where the cache has the model", async () => {
    const dir = await get();
    hub.trouble.instead = only(isInfo, () => undefined);
    const whys: string[] = [];
    expect(
      await get({
        limits: quick,
        onEvent: (event) => {
          if (event.type === "cached") whys.push(event.why);
        },
      }),
    ).toBe(dir);
    expect(whys).toEqual([`no answer from ${host()} for 0.20 s`]);
    hub.trouble.instead = only(isTree, () => undefined);
    expect(await get({ limits: quick })).toBe(dir);
  });
});

function createGzipPipe(gzip: ReturnType<typeof createGzip>, response: ServerResponse): void {
  gzip.pipe(response);
  response.on("close", () => gzip.destroy());
}

describe("a server that asks for another attempt", () => {
  it("because it is busy is asked again when it says, unless that is too long", async () => {
    let requests = 0;
    hub.trouble.instead = only(
      (request) => isInfo(request) && requests === 0,
      (_, response) => {
        requests++;
        response.writeHead(429, { "retry-after": "0" }).end();
      },
    );
    await get();
    expect(notes).toEqual(["the Hub says 429: too many requests, trying again: 2 of 5"]);
    hub.trouble.instead = only(isInfo, (_, response) => void response.writeHead(503, { "retry-after": "3600" }).end());
    expect((await failure(get())).line).toContain("the Hub says 503, and asks to wait 1 h 00 min");
    const pause = (headers: Record<string, string>): number => pauseIn(new Headers(headers));
    expect([
      pause({ "retry-after": "7" }),
      pause({ ratelimit: '"api";r=0;t=55' }),
      pause({ "retry-after": "soon" }),
      pause({}),
    ]).toEqual([7000, 55_000, 0, 0]);
    expect(pause({ "retry-after": new Date(Date.now() + 60_000).toUTCString() })).toBeGreaterThan(50_000);
  });

  it("by an expired link to a store is asked for a new one", async () => {
    let requests = 0;
    hub.trouble.instead = only(
      isFile,
      (_, response) => void response.writeHead(302, { location: `${stranger.origin}/cdn?n=${requests++}` }).end(),
    );
    stranger.reply = (request, response) =>
      void (urlOf(request).endsWith("n=0") ? response.writeHead(403).end() : response.end(weights));
    expectWhole(await get());
    expect(requests).toBe(2);
  });
});
