/**
 * Hubs that are up to something, broken, or not what they seem: no credentials go elsewhere, nothing waits for ever,
 * nothing is written where it should not.
 */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createRawServer, type AddressInfo } from "node:net";
import { dirname, join } from "node:path";
import { createGzip } from "node:zlib";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { UpcycleError } from "../../../src/base/errors.js";
import { askedPause, networkTrouble, type Asked } from "../../../src/files/hub/failures.js";
import { fetchModel, type FetchOptions } from "../../../src/files/hub/fetch.js";
import { hubLimits } from "../../../src/files/hub/limits.js";
import { isFileName } from "../../../src/files/hub/listing.js";
import { hubSettings } from "../../../src/files/hub/settings.js";
import { temporaryFolder } from "../io/temporary.js";
import { commit, fakeHub, listed, type FakeHub } from "./server.js";

const root = temporaryFolder();
const token = "hf_secretOfTheUser";
const text = (words: string): Uint8Array => new TextEncoder().encode(words);
const weights = text("w".repeat(200_000));
const files = { "config.json": text("{}"), "model.safetensors": weights, "tokenizer.json": text("[]") };
let counter = 0;
let cacheDir = "";
let hub: FakeHub;
/** Another host: another port is another origin. */
let stranger: {
  readonly origin: string;
  readonly seen: { url: string; authorization: string | undefined; cookie: string | undefined }[];
  reply: Handler;
  server: Server;
};

type Handler = (request: IncomingMessage, response: ServerResponse) => void;

beforeAll(async () => {
  hub = await fakeHub({ "org/tiny": files });
  const seen: (typeof stranger)["seen"] = [];
  const server = createServer((request, response) => {
    seen.push({ url: request.url!, authorization: request.headers.authorization, cookie: request.headers.cookie });
    stranger.reply(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  stranger = {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    reply: (_, response) => void response.end("[]"),
    server,
  };
});
afterAll(async () => {
  stranger.server.closeAllConnections();
  stranger.server.close();
  await hub.close();
});
beforeEach(() => {
  for (const key of Object.keys(hub.trouble) as (keyof typeof hub.trouble)[]) hub.trouble[key] = undefined;
  hub.requests.length = 0;
  stranger.seen.length = 0;
  stranger.reply = (_, response) => void response.end("[]");
  notes = [];
  cacheDir = join(root, String(counter++));
});

let notes: string[] = [];
type Options = FetchOptions & { readonly endpoint?: string; readonly unusedProxy?: string; readonly secret?: string };
const get = ({
  endpoint = hub.endpoint,
  unusedProxy,
  secret = token,
  limits,
  ...rest
}: Options = {}): Promise<string> =>
  fetchModel("hf://org/tiny", {
    settings: { endpoint, cacheDir, token: secret, offline: false, unusedProxy },
    limits: { retryMs: 1, stallMs: 5000, ...limits },
    onEvent: (event) => {
      if (event.type === "note") notes.push(event.text);
    },
    ...rest,
  });
async function failure(promise: Promise<unknown>): Promise<UpcycleError> {
  const error: unknown = await promise.then(
    () => undefined,
    (cause: unknown) => cause,
  );
  expect(error).toBeInstanceOf(UpcycleError);
  const { line, stack = "" } = error as UpcycleError;
  expect(line).not.toContain("\n");
  for (const words of [line, stack, ...notes]) expect(words).not.toMatch(/secret|swordfish/i);
  return error as UpcycleError;
}
const host = (): string => new URL(hub.endpoint).host;
const isTree = (request: IncomingMessage): boolean => request.url!.includes("/tree/");
const isInfo = (request: IncomingMessage): boolean => request.url!.includes("/revision/");
const isFile = (request: IncomingMessage, name = "model.safetensors"): boolean =>
  request.url!.includes("/resolve/") && request.url!.endsWith(`/${name}`);
const only =
  (
    which: (request: IncomingMessage) => boolean,
    handler: Handler,
  ): ((request: IncomingMessage, response: ServerResponse) => boolean) =>
  (request, response) => {
    if (!which(request)) return false;
    handler(request, response);
    return true;
  };
const entries = (): object[] => Object.entries(files).map(listed);
const json = (response: ServerResponse, value: unknown, headers = {}): void =>
  void response.writeHead(200, { "content-type": "application/json", ...headers }).end(JSON.stringify(value));
const repoDir = (): string => join(cacheDir, "models--org--tiny");
const sha = createHash("sha256").update(weights).digest("hex");
const partial = (): string => join(repoDir(), "blobs", `${sha}.incomplete`);
const expectWhole = (dir: string): void => {
  for (const [name, content] of Object.entries(files))
    expect(readFileSync(join(dir, name)).equals(content), name).toBe(true);
};

describe("the token", () => {
  test.each([
    ["another port", () => `${stranger.origin}/more?cursor=2`],
    ["another scheme", () => `https://${host()}/api/models/org/tiny/tree/x`],
    ["another name of the host", () => hub.endpoint.replace("127.0.0.1", "localhost")],
    ["an address with a password", () => hub.endpoint.replace("//", "//user:swordfish@")],
  ])("is not sent where a list of files goes on at %s: the list is refused", async (_, next) => {
    hub.trouble.instead = only(isTree, (__, response) => json(response, [], { link: `<${next()}>; rel="next"` }));
    const error = await failure(get());
    expect([error.kind, error.line]).toEqual([
      "stopped",
      expect.stringContaining(`hf://org/tiny: ${host()} continues its list of files at another address (`) as string,
    ]);
    expect(stranger.seen).toEqual([]);
  });

  test("goes along to a next page of the Hub itself, however the page is named", async () => {
    const [first, ...rest] = entries();
    const pages: Record<string, [object[], string?]> = {
      "": [[first!], `</api/models/org/tiny/tree/${commit}?cursor=2>; rel=next`],
      "2": [rest],
    };
    const tokens: (string | undefined)[] = [];
    hub.trouble.instead = only(isTree, (request, response) => {
      tokens.push(request.headers.authorization);
      const [page, link] = pages[new URL(request.url!, "http://hub").searchParams.get("cursor") ?? ""]!;
      json(response, page, link === undefined ? {} : { link });
    });
    expectWhole(await get());
    expect(tokens).toEqual([`Bearer ${token}`, `Bearer ${token}`]);
  });

  test("stays behind where a file is stored elsewhere, also on the way back", async () => {
    const tokens: (string | undefined)[] = [];
    hub.trouble.instead = (request, response) => {
      if (request.url!.startsWith("/store/")) {
        tokens.push(request.headers.authorization);
        response.end(weights);
        return true;
      }
      return only(
        isFile,
        (_, answer) =>
          void answer
            .writeHead(302, { location: `${stranger.origin}/cdn?signature=swordfish`, "set-cookie": "a=b" })
            .end(),
      )(request, response);
    };
    stranger.reply = (_, response) => void response.writeHead(307, { location: `${hub.endpoint}/store/blob` }).end();
    expectWhole(await get());
    expect(stranger.seen).toEqual([{ url: "/cdn?signature=swordfish", authorization: undefined, cookie: undefined }]);
    expect(tokens).toEqual([undefined]);
  });

  test("stays behind where the API itself is redirected, and the refusal says why", async () => {
    hub.trouble.instead = only(
      isInfo,
      (_, response) => void response.writeHead(301, { location: `${stranger.origin}/api` }).end(),
    );
    stranger.reply = (_, response) => void response.writeHead(401).end();
    expect((await failure(get())).line).toContain(
      `${stranger.origin} says 401, to which ${hub.endpoint} sends the request (without the token)`,
    );
    expect(stranger.seen.map(({ authorization }) => authorization)).toEqual([undefined]);
  });

  test("is not given to stores that answer as if files were Xet chunks", async () => {
    hub.trouble.instead = only(
      (request) => isFile(request) && (request.headers.accept ?? "").includes("xet"),
      (_, response) => {
        response
          .writeHead(200, {
            "content-type": "application/vnd.xet-fileinfo+json",
            "x-linked-size": weights.length,
            "x-xet-hash": "0".repeat(64),
            "x-linked-etag": `"${"../../".repeat(9)}x"`,
            "x-repo-commit": "../../..",
            link: ["xet-auth", "xet-reconstruction-info"]
              .map((rel) => `<${stranger.origin}/${rel}>; rel="${rel}"`)
              .join(", "),
            etag: '"/etc/passwd"',
          })
          .end("{}");
      },
    );
    stranger.reply = (_, response) => void response.writeHead(500).end();
    expectWhole(await get());
    expect(stranger.seen).toEqual([]);
    expect(readdirSync(cacheDir)).toEqual(["models--org--tiny"]);
  });

  test.each([
    ["ftp://other/x", "sends the request from http:// to ftp://"],
    ["http://user:swordfish@127.0.0.1:1/x", "sends the request to an address with a password in it"],
    ["http://[", "sends the request to an address that is none"],
    ["", "sends the request to an address that is none"],
  ])("is not risked on a redirect to %j", async (location, words) => {
    hub.trouble.instead = only(isInfo, (_, response) => void response.writeHead(302, { location }).end());
    expect((await failure(get())).line).toContain(words);
  });

  test("never shows in a message, whatever is wrong with it or the address", async () => {
    for (const [secret, words] of [
      ["hf_secret\nsecret", "has spaces, line breaks or other characters"],
      ["hf_sécret", "other characters"],
      ["secret", 'does not begin with "hf_"'],
    ] as const) {
      const error = await failure(get({ secret }));
      expect([error.kind, error.line]).toEqual(["input", expect.stringContaining(words) as string]);
    }
    for (const endpoint of ["https://user:swordfish@mirror", "user:swordfish@mirror", "http://swordfish@mirror:1/x"]) {
      expect((await failure(get({ endpoint }))).line).toContain(
        "HF_ENDPOINT: the address has a user name or password in it",
      );
    }
    for (const endpoint of ["http://mirror?x=1", "http://mirror/#x"])
      expect((await failure(get({ endpoint }))).line).toContain("is no address");
    const filesOf = (dir: string): string[] =>
      existsSync(dir) ? readdirSync(dir, { recursive: true, encoding: "utf8" }) : [];
    await get();
    for (const name of filesOf(cacheDir).filter((path) => lstatSync(join(cacheDir, path)).isFile()))
      expect(readFileSync(join(cacheDir, name), "utf8")).not.toContain(token);
  });

  test("is sent to an endpoint below a path", async () => {
    const mirror = createServer((request, response) => {
      const { pathname } = new URL(request.url!, "http://hub");
      if (request.headers.authorization !== `Bearer ${token}` || !pathname.startsWith("/hf/"))
        return void response.writeHead(400).end();
      if (isInfo(request)) return json(response, { sha: commit });
      if (isTree(request)) return json(response, entries());
      response.end(files[pathname.split("/").at(-1) as keyof typeof files]);
    });
    await new Promise<void>((resolve) => mirror.listen(0, "127.0.0.1", resolve));
    expectWhole(await get({ endpoint: `http://127.0.0.1:${(mirror.address() as AddressInfo).port}/hf` }));
    mirror.closeAllConnections();
    mirror.close();
  });
});

describe("a server that does not end", () => {
  const quick = { stallMs: 60, attempts: 3 };

  test.each([
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
    let asked = 0;
    hub.trouble.instead = only(which, (request, response) => {
      asked++;
      handler(request, response);
    });
    const error = await failure(get({ limits: quick }));
    expect([error.kind, error.line]).toEqual([
      "stopped",
      `hf://org/tiny: no answer from ${host()} for 0.060 s; run the same command later to go on`,
    ]);
    expect(notes.filter((note) => !note.includes("whole files only"))).toEqual(
      [2, 3].map((n) => `no answer from ${host()} for 0.060 s, trying again: ${n} of 3`),
    );
    expect(asked).toBe(3);
  });

  test("but answers byte by byte is given up after the time for one answer", async () => {
    hub.trouble.instead = only(isTree, (_, response) => {
      response.write("[");
      const timer = setInterval(() => response.write(" "), 10);
      response.on("close", () => clearInterval(timer));
    });
    expect((await failure(get({ limits: { attempts: 1, answerMs: 100 } }))).line).toContain(
      `${host()} takes more than 0.10 s for one answer`,
    );
  });

  test("but sends a file byte by byte is given up, what came being kept", async () => {
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

  test("but stalls in the midst of a file goes on from there", async () => {
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

  test.each([
    ["always another page", (n: number) => `?cursor=${n}`, "12 pages"],
    ["the same page again", () => "", "1 pages"],
  ])("but lists %s is refused", async (_, query, words) => {
    let page = 0;
    hub.trouble.instead = only(isTree, (request, response) => {
      const cursor = query(++page);
      const path = cursor === "" ? request.url! : request.url!.replace(/\?.*/, cursor);
      json(response, [], { link: `<${hub.endpoint}${path}>; rel="next"` });
    });
    expect((await failure(get({ limits: { pages: 12 } }))).line).toContain(
      `${host()} lists files without end (${words})`,
    );
  });

  test("but lists a million files is refused after as many as are taken", async () => {
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

  test.each(["gzip", "identity"])(
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

  test("but sends more of a file than there is gets no more read, and what is wrong is removed", async () => {
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
    expect(readdirSync(join(repoDir(), "blobs")).filter((name) => name.startsWith(sha))).toEqual([]);
  });

  test("but redirects for ever is left", async () => {
    let hops = 0;
    hub.trouble.instead = only(
      isInfo,
      (request, response) => void response.writeHead(302, { location: `${request.url!}&n=${hops++}` }).end(),
    );
    expect((await failure(get())).line).toContain("sends the request from one address to the next, 10 times");
    expect(hops).toBe(11);
  });

  test.each([
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

  test("is not asked at all after Ctrl-C", async () => {
    expect((await failure(get({ signal: AbortSignal.abort() }))).kind).toBe("interrupted");
    expect(hub.requests).toEqual([]);
  });

  test("need not be waited for where the cache has the model", async () => {
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
    expect(whys).toEqual([`no answer from ${host()} for 0.060 s`]);
    hub.trouble.instead = only(isTree, () => undefined);
    expect(await get({ limits: quick })).toBe(dir);
  });
});

function createGzipPipe(gzip: ReturnType<typeof createGzip>, response: ServerResponse): void {
  gzip.pipe(response);
  response.on("close", () => gzip.destroy());
}

describe("wrong answers", () => {
  const answers = (which: (request: IncomingMessage) => boolean, value: string): void => {
    hub.trouble.instead = only(which, (_, response) => void response.writeHead(200).end(value));
  };

  test.each([
    ["a login page", "<html>log in</html>"],
    ["nothing", ""],
    ["null", "null"],
    ["a number", "7"],
    ["a commit that is null", '{"sha":null}'],
    ["a commit that is a path", '{"sha":"../../../../../tmp/x"}'],
    ["a commit with a path behind it", `{"sha":"${commit}/.."}`],
    ["lists in lists without end", "[".repeat(100_000)],
  ])("%s names no commit", async (_, value) => {
    answers(isInfo, value);
    expect((await failure(get())).line).toMatch(
      /answers with something else than a Hub does|names no commit of the model/,
    );
    expect(existsSync(cacheDir)).toBe(false);
  });

  test.each([
    ["a login page", "<html>log in</html>"],
    ["null", "null"],
    ["a number", "7"],
    ["a list of null", "[null]"],
    ["lists in lists", "[".repeat(100_000) + "]".repeat(100_000)],
  ])("%s lists no files", async (_, value) => {
    answers(isTree, value);
    expect((await failure(get())).line).toMatch(/answers with something else than a Hub does|has no config\.json/);
  });

  test("names, sizes and checksums that are none name no file, inside the cache or elsewhere", async () => {
    const entry = listed(["x", weights]);
    const bad = [
      "..",
      ".",
      "../x",
      "/etc/passwd",
      "a\\b",
      "LICENSE.\0",
      "LICENSE.\u001b]0;x\u0007",
      "LICENSE.\n",
      "con.json",
      "LICENSE.:ads",
      "NOTICE. ",
      `LICENSE.${"x".repeat(300)}`,
      "constructor/../x",
    ];
    hub.trouble.instead = only(isTree, (_, response) =>
      json(response, [
        ...entries(),
        ...bad.map((path) => ({ ...entry, path })),
        ...[-1, 1.5, "9", null, 1e300].map((size, i) => ({ ...entry, path: `LICENSE.${i}`, size, lfs: undefined })),
        ...["../../x", "a/b", "", null, "0".repeat(39), "A".repeat(40)].map((oid, i) => ({
          ...entry,
          path: `NOTICE.${i}`,
          oid,
          lfs: undefined,
        })),
        { ...entry, path: "COPYING", lfs: { oid: "../../".repeat(21) + "x", size: 3 } },
        { ...entry, path: 7 },
        {},
        { type: "directory", path: "LICENSE", oid: "0" },
      ]),
    );
    const dir = await get();
    expectWhole(dir);
    expect(readdirSync(dir).sort()).toEqual(Object.keys(files).sort());
    expect(readdirSync(cacheDir)).toEqual(["models--org--tiny"]);
    for (const name of bad) expect(isFileName(name), name).toBe(false);
    for (const name of [
      "config.json",
      "LICENSE.模型.md",
      "model-00001-of-00002.safetensors",
      ".gitattributes",
      "console.json",
      "a b",
    ])
      expect(isFileName(name), name).toBe(true);
  });

  test.each(["file", "directory"])("a name that is listed twice, the second time as a %s", async (type) => {
    hub.trouble.instead = only(isTree, (_, response) =>
      json(response, [...entries(), { ...listed(["config.json", weights]), type }]),
    );
    expect((await failure(get())).line).toBe(
      'hf://org/tiny: the Hub lists "config.json" twice; run the same command later, or check HF_ENDPOINT',
    );
  });

  test.each([
    ["a part that begins elsewhere", { "content-range": `bytes 0-${weights.length - 1}/${weights.length}` }],
    ["a part that does not say where it begins", {}],
  ])("%s is not appended: the server is asked for the whole file", async (_, headers) => {
    mkdirSync(join(repoDir(), "blobs"), { recursive: true });
    writeFileSync(partial(), weights.subarray(0, 1000));
    hub.trouble.instead = only(
      (request) => isFile(request) && request.headers.range !== undefined,
      (__, response) => void response.writeHead(206, headers).end(text("x".repeat(1000))),
    );
    expectWhole(await get());
    expect(notes).toEqual([
      `${host()} sends whole files only: 1.0 kB of model.safetensors that are here come once more`,
    ]);
  });

  test("another length is asked for once more, then refused; what was here stays", async () => {
    mkdirSync(join(repoDir(), "blobs"), { recursive: true });
    writeFileSync(partial(), weights.subarray(0, 1000));
    hub.trouble.instead = only(isFile, (_, response) => void response.end("<html>log in</html>"));
    expect((await failure(get())).line).toContain("model.safetensors has 19 bytes, the Hub announced 200000");
    expect(notes).toEqual(["model.safetensors has 19 bytes, the Hub announced 200000, trying again: 2 of 2"]);
    expect(readFileSync(partial()).length).toBe(1000);
  });

  test("a file that is larger than the disk is not begun", async () => {
    hub.trouble.instead = only(isTree, (_, response) =>
      json(
        response,
        entries().map((entry) =>
          (entry as { path: string }).path === "tokenizer.json" ? { ...entry, size: 1e15 } : entry,
        ),
      ),
    );
    expect((await failure(get())).line).toContain("not enough disk space: 1.0");
    expect(hub.requests.some((request) => request.includes("/resolve/"))).toBe(false);
  });

  test("a busy server is asked again when it says, unless that is too long", async () => {
    let asked = 0;
    hub.trouble.instead = only(
      (request) => isInfo(request) && asked === 0,
      (_, response) => {
        asked++;
        response.writeHead(429, { "retry-after": "0" }).end();
      },
    );
    await get();
    expect(notes).toEqual(["the Hub says 429: too many requests, trying again: 2 of 5"]);
    hub.trouble.instead = only(isInfo, (_, response) => void response.writeHead(503, { "retry-after": "3600" }).end());
    expect((await failure(get())).line).toContain("the Hub says 503, and asks to wait 1 h 00 min");
    const pause = (headers: Record<string, string>): number => askedPause(new Headers(headers));
    expect([
      pause({ "retry-after": "7" }),
      pause({ ratelimit: '"api";r=0;t=55' }),
      pause({ "retry-after": "soon" }),
      pause({}),
    ]).toEqual([7000, 55_000, 0, 0]);
    expect(pause({ "retry-after": new Date(Date.now() + 60_000).toUTCString() })).toBeGreaterThan(50_000);
  });

  test("an expired link to a store is asked for anew", async () => {
    let asked = 0;
    hub.trouble.instead = only(
      isFile,
      (_, response) => void response.writeHead(302, { location: `${stranger.origin}/cdn?n=${asked++}` }).end(),
    );
    stranger.reply = (request, response) =>
      void (request.url!.endsWith("n=0") ? response.writeHead(403).end() : response.end(weights));
    expectWhole(await get());
    expect(asked).toBe(2);
  });
});

describe("the cache", () => {
  test.runIf(process.platform !== "win32")("is not left through links that someone put there", async () => {
    const thesis = join(root, "thesis.txt");
    const elsewhere = join(root, "elsewhere");
    const untouched = (): void => {
      expect(readFileSync(thesis, "utf8")).toBe("thesis");
      expect(readdirSync(elsewhere)).toEqual([]);
    };
    writeFileSync(thesis, "thesis");
    mkdirSync(elsewhere);
    for (const link of [symlinkSync, linkSync]) {
      cacheDir = join(root, String(counter++));
      mkdirSync(join(repoDir(), "blobs"), { recursive: true });
      link(thesis, partial());
      expect((await failure(get())).line).toContain(`expected a part of a download; remove it`);
      untouched();
    }
    for (const folder of ["blobs", "refs", "snapshots", `snapshots/${commit}`, "headers"]) {
      cacheDir = join(root, String(counter++));
      mkdirSync(dirname(join(repoDir(), folder)), { recursive: true });
      symlinkSync(elsewhere, join(repoDir(), folder));
      expect((await failure(get())).line, folder).toContain("this is a link that leads out of the cache");
      untouched();
    }
  });

  test.runIf(process.platform !== "win32")(
    "may itself lie behind a link, and a link to another file is made anew",
    async () => {
      const disk = join(root, "disk");
      mkdirSync(join(disk, "snapshots", commit), { recursive: true });
      mkdirSync(cacheDir);
      symlinkSync(disk, repoDir());
      writeFileSync(join(root, "other.json"), "something else");
      symlinkSync(join(root, "other.json"), join(disk, "snapshots", commit, "config.json"));
      symlinkSync(join(root, "nowhere"), join(disk, "snapshots", commit, "tokenizer.json"));
      expectWhole(await get());
      expect(readFileSync(join(root, "other.json"), "utf8")).toBe("something else");
    },
  );

  test("with a file that is not what its name says is not used, and not replaced", async () => {
    mkdirSync(join(repoDir(), "blobs"), { recursive: true });
    writeFileSync(join(repoDir(), "blobs", sha), "short");
    const error = await failure(get());
    expect([error.kind, error.line]).toEqual([
      "input",
      expect.stringContaining(
        "this is not model.safetensors as the Hub has it: 5 bytes instead of 200000; remove it",
      ) as string,
    ]);
    expect(readFileSync(join(repoDir(), "blobs", sha), "utf8")).toBe("short");
  });

  test("is one download's at a time, and a branch whose name is taken is no failure", async () => {
    hub.trouble.slow = true;
    const controller = new AbortController();
    let second: Promise<UpcycleError> | undefined;
    const first = failure(
      get({
        signal: controller.signal,
        onEvent: (event) => {
          if (event.type !== "progress" || event.file !== "model.safetensors" || event.done < 50_000) return;
          second ??= failure(get()).finally(() => controller.abort());
        },
      }),
    );
    expect((await first).kind).toBe("interrupted");
    expect((await second!).line).toContain(`another command (process ${process.pid}) is working in this folder`);
    hub.trouble.slow = false;
    mkdirSync(join(repoDir(), "refs", "main"), { recursive: true });
    expectWhole(await get());
    expect(notes).toEqual([
      expect.stringMatching(
        /^warning: which commit main is could not be kept \(.*\); without a network ask for @[0-9a-f]{40}$/,
      ),
    ]);
  });
});

describe("why there is no answer", () => {
  const asked: Asked = {
    where: "hf://a/b",
    repo: "a/b",
    revision: "main",
    endpoint: "https://hub",
    token: true,
    proxy: undefined,
    limits: hubLimits,
  };
  const line = (code: string, extra: Partial<Asked> = {}): string =>
    networkTrouble(
      new TypeError("fetch failed", { cause: Object.assign(new Error("x"), { code }) }),
      new URL("https://hub/secret"),
      false,
      { ...asked, ...extra },
    ).failure.line;

  test.each([
    ["ENOTFOUND", "cannot reach https://hub (no address is known for this name, ENOTFOUND); check the network"],
    ["ECONNREFUSED", "(it refuses connections, ECONNREFUSED); check the network"],
    ["ENETUNREACH", "(no way leads there, ENETUNREACH); check the network"],
    ["UND_ERR_CONNECT_TIMEOUT", "(no connection in time, UND_ERR_CONNECT_TIMEOUT); check the network"],
    [
      "DEPTH_ZERO_SELF_SIGNED_CERT",
      "(its certificate is not accepted, DEPTH_ZERO_SELF_SIGNED_CERT); check the clock and HF_ENDPOINT",
    ],
    ["UNABLE_TO_VERIFY_LEAF_SIGNATURE", "its certificate is not accepted"],
    ["ERR_TLS_CERT_ALTNAME_INVALID", "its certificate is not accepted"],
    ["ERR_SSL_WRONG_VERSION_NUMBER", "it does not speak TLS"],
    ["HPE_INVALID_CONSTANT", "its answer is no HTTP (hub: HPE_INVALID_CONSTANT); check HF_ENDPOINT"],
    ["ECONNRESET", "the connection broke (hub: ECONNRESET); run the same command to go on"],
  ])("%s", (code, words) => {
    expect(line(code)).toContain(words);
    expect(line(code)).not.toContain("secret");
    if (!words.includes("network")) expect(line(code)).not.toContain("check the network");
  });

  test("a proxy that Node does not use is named where it may be the reason", async () => {
    expect(line("ENOTFOUND", { proxy: "HTTPS_PROXY" })).toContain(
      "HTTPS_PROXY is set, which Node's fetch uses from Node 22.21 on with NODE_USE_ENV_PROXY=1 alone",
    );
    expect(line("CERT_HAS_EXPIRED", { proxy: "HTTPS_PROXY" })).not.toContain("HTTPS_PROXY");
    expect(await hubSettings({ HF_HOME: root, https_proxy: "http://user:pass@proxy" })).toMatchObject({
      unusedProxy: "https_proxy",
    });
    expect(await hubSettings({ HF_HOME: root })).toMatchObject({ unusedProxy: undefined });
  });

  test("servers that speak something else, or nothing", async () => {
    const raw = createRawServer((socket) => socket.on("error", () => undefined).end("SSH-2.0-OpenSSH\r\n"));
    await new Promise<void>((resolve) => raw.listen(0, "127.0.0.1", resolve));
    const { port } = raw.address() as AddressInfo;
    expect((await failure(get({ endpoint: `http://127.0.0.1:${port}`, limits: { attempts: 2 } }))).line).toContain(
      "its answer is no HTTP",
    );
    expect((await failure(get({ endpoint: `https://127.0.0.1:${new URL(hub.endpoint).port}` }))).line).toContain(
      "it does not speak TLS",
    );
    raw.close();
    expect((await failure(get({ endpoint: `http://127.0.0.1:${port}` }))).line).toContain(
      "it refuses connections, ECONNREFUSED",
    );
  });

  test("a token that would travel unencrypted is said", async () => {
    const error = failure(get({ endpoint: "http://127.0.0.1.invalid", signal: AbortSignal.abort() }));
    expect((await error).kind).toBe("interrupted");
    expect(notes).toEqual([
      "warning: the token goes to 127.0.0.1.invalid unencrypted, because HF_ENDPOINT begins with http://",
    ]);
  });

  test("settings: a token file with line breaks, a pipe of that name, a time to wait", async () => {
    const file = join(root, "token");
    writeFileSync(file, "\ufeff hf_stored\r\n\n");
    expect(await hubSettings({ HF_TOKEN_PATH: file, HF_HUB_DOWNLOAD_TIMEOUT: "7" })).toMatchObject({
      token: "hf_stored",
      tokenFrom: file,
      stallMs: 7000,
    });
    expect(await hubSettings({ HF_TOKEN_PATH: root })).toMatchObject({ token: undefined });
    if (process.platform !== "win32") {
      const pipe = join(root, "pipe");
      execFileSync("mkfifo", [pipe]);
      expect(await hubSettings({ HF_TOKEN_PATH: pipe })).toMatchObject({ token: undefined });
    }
    for (const bad of ["soon", "0", "-1", "Infinity"])
      await expect(hubSettings({ HF_HUB_DOWNLOAD_TIMEOUT: bad })).rejects.toThrow("is no number of seconds");
  });
});
