/**
 * What is fetched of a model on the Hub, and what the cache holds afterwards. The file is long because one local Hub
 * serves all of its cases.
 */
import { createHash } from "node:crypto";
import {
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { UpcycleError } from "../../../src/base/errors.js";
import { openCheckpoint } from "../../../src/files/checkpoint/open.js";
import { parseSafetensors } from "../../support/safetensors.js";
import { fetchModel, type FetchOptions, type HubEvent } from "../../../src/files/hub/fetch.js";
import { isHubReference, modelName, parseHubReference } from "../../../src/files/hub/reference.js";
import { temporaryFolder } from "../io/temporary.js";
import { golden } from "../../support/golden.js";
import { commit, fakeHub, type FakeHub } from "./server.js";

const root = temporaryFolder();
let counter = 0;
const text = (words: string): Uint8Array => new TextEncoder().encode(words);
const weights = new Uint8Array(readFileSync(join(golden("dense/llama"), "model.safetensors")));
const files = {
  "config.json": new Uint8Array(readFileSync(join(golden("dense/llama"), "config.json"))),
  "model.safetensors": weights,
  "pytorch_model.bin": text("x".repeat(5000)),
  "tokenizer.json": text("{}"),
  "README.md": text("hello"),
  "modeling_x.py": text("import os"),
  LICENSE: text("free"),
};
const neededFiles = ["LICENSE", "README.md", "config.json", "model.safetensors", "tokenizer.json"];
const model = "hf://org/tiny";
let hub: FakeHub;
let cacheDir = "";

beforeAll(async () => {
  hub = await fakeHub({ "org/tiny": files });
});
afterAll(() => hub.close());
beforeEach(() => {
  for (const key of Object.keys(hub.trouble) as (keyof typeof hub.trouble)[]) hub.trouble[key] = undefined;
  hub.requests.length = 0;
  cacheDir = join(root, String(counter++));
});

const get = (
  name = model,
  options: FetchOptions & { token?: string; offline?: boolean; endpoint?: string } = {},
): Promise<string> => {
  const { token, offline = false, endpoint = hub.endpoint, ...rest } = options;
  return fetchModel(name, { settings: { endpoint, cacheDir, token, offline }, limits: { retryMs: 1 }, ...rest });
};
async function failure(promise: Promise<unknown>): Promise<UpcycleError> {
  const error: unknown = await promise.then(
    () => undefined,
    (cause: unknown) => cause,
  );
  expect(error).toBeInstanceOf(UpcycleError);
  expect((error as UpcycleError).line).not.toContain("\n");
  return error as UpcycleError;
}
const repoDir = (): string => join(cacheDir, "models--org--tiny");
const partial = (): string =>
  join(repoDir(), "blobs", `${createHash("sha256").update(weights).digest("hex")}.incomplete`);
const bodies = (name: string): string[] =>
  hub.requests.filter((request) => request.includes(`/${name}`) && !request.endsWith("bytes=0-0"));

describe("a model of the Hub", () => {
  it("becomes a folder in the cache of huggingface_hub, with the files that are needed", async () => {
    const events: HubEvent[] = [];
    const dir = await get(model, { onEvent: (event) => events.push(event) });
    expect(dir).toBe(join(repoDir(), "snapshots", commit));
    expect(readdirSync(dir).sort()).toEqual(neededFiles);
    for (const name of neededFiles)
      expect(new Uint8Array(readFileSync(join(dir, name)))).toEqual(files[name as keyof typeof files]);
    expect(readFileSync(join(repoDir(), "refs", "main"), "utf8")).toBe(commit);
    expect(readdirSync(repoDir()).sort()).toEqual(["blobs", "refs", "snapshots"]);
    if (process.platform !== "win32") {
      expect(lstatSync(join(dir, "model.safetensors")).isSymbolicLink()).toBe(true);
      expect(readlinkSync(join(dir, "model.safetensors"))).toBe(
        `../../blobs/${createHash("sha256").update(weights).digest("hex")}`,
      );
    }
    const total = neededFiles.reduce((sum, name) => sum + files[name as keyof typeof files].length, 0);
    expect(events[0]).toEqual({ type: "commit", commit });
    expect(events.at(-1)).toMatchObject({ type: "progress", file: "config.json", done: total, total });
    const done = events.flatMap((event) => (event.type === "progress" ? [event.done] : []));
    expect([...done].sort((a, b) => a - b)).toEqual(done);
  });

  it("is downloaded once, whatever name its commit is asked by", async () => {
    await get();
    hub.requests.length = 0;
    expect(await get(`${model}@v1`)).toBe(await get(`${model}@${commit}`));
    expect(hub.requests.filter((request) => request.includes("/resolve/"))).toEqual([]);
    expect(readdirSync(join(repoDir(), "refs")).sort()).toEqual(["main", "v1"]);
  });

  it("is its headers alone, of the full length, where no weights are read", async () => {
    const dir = await get(model, { part: "headers" });
    expect(dir).toBe(join(repoDir(), "headers", commit));
    expect(modelName(dir)).toBe("org/tiny");
    expect(readdirSync(dir).sort()).toEqual(["config.json", "model.safetensors"]);
    const headerFile = new Uint8Array(readFileSync(join(dir, "model.safetensors")));
    const end = 8 + Number(new DataView(weights.buffer, weights.byteOffset).getBigUint64(0, true));
    expect(headerFile.length).toBe(weights.length);
    expect(headerFile.subarray(0, end)).toEqual(weights.subarray(0, end));
    expect(new TextDecoder().decode(headerFile.subarray(end, end + 16))).toBe("no weights here\n");
    expect(headerFile.subarray(end + 16).every((byte) => byte === 0)).toBe(true);
    const whole = await get();
    expect(readFileSync(join(whole, "model.safetensors")).equals(weights)).toBe(true);
    expect(await get(model, { part: "headers" })).toBe(whole);
    expect(await get(model, { part: "config" })).toBe(whole);
  });

  it("whose headers alone are here gives no weights, wherever the folder is linked, copied or moved to", async () => {
    const dir = await get(model, { part: "headers" });
    const [link, copy, moved] = [join(cacheDir, "link"), join(cacheDir, "copy"), join(cacheDir, "moved")];
    symlinkSync(dir, link);
    cpSync(dir, copy, { recursive: true });
    cpSync(dir, moved, { recursive: true });
    renameSync(join(moved, "model.safetensors"), join(moved, "model-00001-of-00001.safetensors"));
    const tensors = [...parseSafetensors(weights, "").tensors.keys()];
    writeFileSync(
      join(moved, "model.safetensors.index.json"),
      JSON.stringify({
        weight_map: Object.fromEntries(tensors.map((name) => [name, "model-00001-of-00001.safetensors"])),
      }),
    );
    for (const folder of [dir, link, copy, moved]) {
      const checkpoint = await openCheckpoint(folder);
      const line =
        `${join(folder, folder === moved ? "model-00001-of-00001.safetensors" : "model.safetensors")}: this file ` +
        "has the header of the weights alone, not the weights";
      const region = { key: "layers.0.q", rowStart: 0, rowCount: 1, columnStart: 0, columnCount: 4, stride: 32 };
      for (const reading of [
        () => checkpoint.readFloat32("embed"),
        () => checkpoint.readRows("embed", 0, 1),
        () => checkpoint.readRectangle(region),
      ]) {
        const error = await failure(reading());
        expect([error.kind, error.line]).toEqual(["input", expect.stringContaining(line) as string]);
      }
      await checkpoint.close();
    }
  });

  it("whose headers are here is used without a network, for what headers are enough for", async () => {
    expect(await get(model, { part: "config" })).toBe(join(repoDir(), "headers", commit));
    const offline = { offline: true, endpoint: "http://127.0.0.1:1" };
    expect((await failure(get(model, { part: "headers", ...offline }))).line).toContain(
      "the model is not in the cache",
    );
    const dir = await get(model, { part: "headers" });
    expect(existsSync(join(repoDir(), "refs"))).toBe(false);
    for (const name of [model, `${model}@${commit}`]) {
      expect(await get(name, { part: "headers", ...offline })).toBe(dir);
      expect(await get(name, { part: "config", ...offline })).toBe(dir);
      expect((await failure(get(name, offline))).line).toContain(
        "the model is not in the cache, and HF_HUB_OFFLINE is set",
      );
    }
    expect((await failure(get(`${model}@v1`, { part: "headers", ...offline }))).line).toContain(
      "the model is not in the cache",
    );
    expect(await get(model, { part: "headers", endpoint: "http://127.0.0.1:1" })).toBe(dir);
  });

  it("gives its headers after a broken line", async () => {
    Object.assign(hub.trouble, { breakAfter: 100, breaks: 2 });
    const dir = await get(model, { part: "headers" });
    expect(readdirSync(dir).sort()).toEqual(["config.json", "model.safetensors"]);
    expect(hub.trouble.breaks).toBe(0);
    cacheDir = join(root, String(counter++));
    Object.assign(hub.trouble, { breakAfter: 100, breaks: 1000 });
    expect((await failure(get(model, { part: "headers" }))).kind).toBe("stopped");
  });

  it("has headers that can be read, or none are kept", async () => {
    const broken = await fakeHub({
      "org/tiny": {
        "config.json": files["config.json"],
        "model.safetensors": text("not a header at all, but long enough for one"),
      },
    });
    expect((await failure(get(model, { part: "headers", endpoint: broken.endpoint }))).line).toContain(
      "hf://org/tiny/model.safetensors: header length is",
    );
    expect(existsSync(join(repoDir(), "headers", commit, "config.json"))).toBe(false);
    await broken.close();
  });

  it("may be an adapter, which is no model: its config, card and weights alone", async () => {
    const adapter = {
      "adapter_config.json": text("{}"),
      "adapter_model.safetensors": text("factors"),
      "adapter_model.bin": text("factors"),
      "tokenizer.json": text("{}"),
      "README.md": text("hello"),
    };
    const other = await fakeHub({ "org/tiny": adapter });
    const dir = await get(model, { part: "adapter", endpoint: other.endpoint });
    expect(readdirSync(dir).sort()).toEqual(["README.md", "adapter_config.json", "adapter_model.safetensors"]);
    expect(modelName(dir)).toBe("org/tiny");
    expect(await get(model, { part: "adapter", offline: true })).toBe(dir);
    await other.close();
    cacheDir = join(root, String(counter++));
    expect((await failure(get(model, { part: "adapter" }))).line).toContain("there is no adapter_config.json");
  });

  it("of torch.save has no headers: it comes as a whole", async () => {
    const pickled = await fakeHub({ "org/tiny": { "config.json": text("{}"), "pytorch_model.bin": text("weights") } });
    expect(readdirSync(await get(model, { part: "headers", endpoint: pickled.endpoint })).sort()).toEqual([
      "config.json",
      "pytorch_model.bin",
    ]);
    await pickled.close();
    const sharded = await fakeHub({
      "org/tiny": {
        "config.json": text("{}"),
        "model-00001-of-00001.safetensors": weights,
        "model.safetensors.index.json": text(JSON.stringify({ weight_map: { t: "model-00001-of-00001.safetensors" } })),
      },
    });
    cacheDir = join(root, String(counter++));
    expect(readdirSync(await get(model, { part: "headers", endpoint: sharded.endpoint })).sort()).toEqual([
      "config.json",
      "model-00001-of-00001.safetensors",
      "model.safetensors.index.json",
    ]);
    await sharded.close();
  });

  it("comes in shards, or as pytorch_model.bin", async () => {
    const index = (names: string[]): Uint8Array =>
      text(JSON.stringify({ weight_map: Object.fromEntries(names.map((name, i) => [`t${i}`, name])) }));
    const sharded = await fakeHub({
      "org/tiny": {
        "config.json": text("{}"),
        "model-00001-of-00002.safetensors": text("a"),
        "model-00002-of-00002.safetensors": text("b"),
        "consolidated.safetensors": text("c"),
        "model.safetensors.index.json": index(["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]),
      },
    });
    expect(readdirSync(await get(model, { endpoint: sharded.endpoint })).sort()).toEqual([
      "config.json",
      "model-00001-of-00002.safetensors",
      "model-00002-of-00002.safetensors",
      "model.safetensors.index.json",
    ]);
    await sharded.close();
    cacheDir = join(root, String(counter++));
    const pickled = await fakeHub({
      "org/tiny": { "config.json": text("{}"), "pytorch_model.bin": text("a"), "flax_model.msgpack": text("b") },
    });
    expect(readdirSync(await get(model, { endpoint: pickled.endpoint })).sort()).toEqual([
      "config.json",
      "pytorch_model.bin",
    ]);
    await pickled.close();
    const broken = await fakeHub({
      "org/tiny": {
        "config.json": text("{}"),
        "model.safetensors.index.json": index(["model-00001-of-00002.safetensors"]),
      },
    });
    cacheDir = join(root, String(counter++));
    expect((await failure(get(model, { endpoint: broken.endpoint }))).line).toContain(
      "the index lists model-00001-of-00002.safetensors, which the model does not have",
    );
    await broken.close();
  });
});

describe("a broken line", () => {
  it("is taken up again where it broke off", async () => {
    Object.assign(hub.trouble, { breakAfter: 20_000, breaks: 3 });
    const dir = await get();
    expect(new Uint8Array(readFileSync(join(dir, "model.safetensors")))).toEqual(weights);
    expect(bodies("model.safetensors")).toEqual([
      `GET /org/tiny/resolve/${commit}/model.safetensors`,
      ...[20_000, 40_000, 60_000].map(
        (at) => `GET /org/tiny/resolve/${commit}/model.safetensors bytes=${at}-${weights.length - 1}`,
      ),
    ]);
  });

  it("that brings nothing more ends the download; the next call goes on", async () => {
    Object.assign(hub.trouble, { breakAfter: 30_000, breaks: 1 });
    const error = await failure(
      get(model, {
        onEvent: (event) => {
          if (event.type === "progress" && event.done > 20_000) hub.trouble.status = 503;
        },
      }),
    );
    expect(error.kind).toBe("stopped");
    expect(error.line).toContain("the Hub says 503; run the same command later to go on");
    expect(readFileSync(partial()).length).toBe(30_000);
    expect(existsSync(join(repoDir(), "snapshots", commit, "config.json"))).toBe(false);
    hub.trouble.status = undefined;
    hub.requests.length = 0;
    expect(new Uint8Array(readFileSync(join(await get(), "model.safetensors")))).toEqual(weights);
    expect(bodies("model.safetensors")).toEqual([
      `GET /org/tiny/resolve/${commit}/model.safetensors bytes=30000-${weights.length - 1}`,
    ]);
    expect(existsSync(partial())).toBe(false);
  });

  it("keeps what has come after Ctrl-C", async () => {
    hub.trouble.slow = true;
    const controller = new AbortController();
    const half = Math.floor(weights.length / 2);
    const stopped = failure(
      get(model, {
        signal: controller.signal,
        onEvent: (event) => {
          if (event.type === "progress" && event.done > half) controller.abort();
        },
      }),
    );
    expect((await stopped).kind).toBe("interrupted");
    expect((await stopped).line).toContain("download stopped; run the same command to go on");
    expect(readFileSync(partial()).length).toBe(half);
    hub.trouble.slow = undefined;
    expect(new Uint8Array(readFileSync(join(await get(), "model.safetensors")))).toEqual(weights);
  });

  it("a part that is longer than the file is thrown away, a wrong one shows in the checksum", async () => {
    mkdirSync(join(repoDir(), "blobs"), { recursive: true });
    writeFileSync(partial(), new Uint8Array(weights.length + 1));
    await get();
    cacheDir = join(root, String(counter++));
    mkdirSync(join(repoDir(), "blobs"), { recursive: true });
    writeFileSync(partial(), new Uint8Array(1000));
    const notes: string[] = [];
    const dir = await get(model, {
      onEvent: (event) => {
        if (event.type === "note") notes.push(event.text);
      },
    });
    expect(notes).toEqual([
      expect.stringMatching(
        /^model\.safetensors arrived damaged \(checksum .*\), it was removed, trying again: 2 of 2$/,
      ),
    ]);
    expect(new Uint8Array(readFileSync(join(dir, "model.safetensors")))).toEqual(weights);
    expect(bodies("model.safetensors").slice(-2)).toEqual([
      `GET /org/tiny/resolve/${commit}/model.safetensors bytes=1000-${weights.length - 1}`,
      `GET /org/tiny/resolve/${commit}/model.safetensors`,
    ]);
    expect(existsSync(partial())).toBe(false);
  });

  it("of a server that sends whole files only is taken up again by leaving out what is here", async () => {
    mkdirSync(join(repoDir(), "blobs"), { recursive: true });
    writeFileSync(partial(), weights.subarray(0, 1000));
    hub.trouble.wholeOnly = true;
    Object.assign(hub.trouble, { breakAfter: 30_000, breaks: 1 });
    const notes: string[] = [];
    const dir = await get(model, {
      onEvent: (event) => {
        if (event.type === "note") notes.push(event.text);
      },
    });
    expect(new Uint8Array(readFileSync(join(dir, "model.safetensors")))).toEqual(weights);
    const { host } = new URL(hub.endpoint);
    expect(notes[0]).toBe(`${host} sends whole files only: 1.0 kB of model.safetensors that are here come once more`);
    expect(notes[1]).toMatch(/^the connection broke \(.*\), trying again: 2 of 5$/);
    expect(notes[2]).toBe(`${host} sends whole files only: 30 kB of model.safetensors that are here come once more`);
    cacheDir = join(root, String(counter++));
    expect(readdirSync(await get(model, { part: "headers" })).sort()).toEqual(["config.json", "model.safetensors"]);
  });
});

describe("a download is refused", () => {
  it("where files arrive damaged, which never get their name", async () => {
    for (const damage of ["tokenizer.json", "model.safetensors"]) {
      hub.trouble.damage = damage;
      expect((await failure(get())).line).toContain(`${damage} arrived damaged`);
    }
    expect(existsSync(join(repoDir(), "snapshots", commit, "model.safetensors"))).toBe(false);
  });

  it("where a model is gated, unless a token may read it", async () => {
    hub.trouble.token = "hf_right";
    const none = await failure(get());
    expect([none.kind, none.line]).toEqual([
      "input",
      expect.stringContaining("hf://org/tiny: the Hub says 401: the model is gated; accept its conditions at "),
    ]);
    expect((await failure(get(model, { token: "hf_wrong" }))).line).toContain(
      `this account may not read the model; accept its conditions at ${hub.endpoint}/org/tiny, with the ` +
        "account of HF_TOKEN",
    );
    expect((await failure(get(model, { token: "right" }))).line).toContain(
      'HF_TOKEN: the token of the Hub does not begin with "hf_"',
    );
    await get(model, { token: "hf_right" });
  });

  it.each([
    [401, "", "input", "does not accept the token"],
    [404, "RepoNotFound", "input", "the Hub has no such model; check the name and revision"],
    [404, "RevisionNotFound", "input", "the model has no revision main"],
    [429, "", "stopped", "too many requests"],
    [500, "", "stopped", "the Hub says 500"],
  ])("after an answer with status %d %s, saying what to do", async (status, code, kind, words) => {
    Object.assign(hub.trouble, { status, code });
    const error = await failure(get(model, { token: "hf_any" }));
    expect(error.kind).toBe(kind);
    expect(error.line).toContain(words);
  });

  it("where the endpoint is no address", async () => {
    for (const endpoint of ["huggingface.co", "http://", "ftp://host"]) {
      const error = await failure(get(model, { endpoint }));
      expect([error.kind, error.line]).toEqual([
        "input",
        `HF_ENDPOINT: "${endpoint}" is no address; write one such as https://huggingface.co, or leave it out`,
      ]);
    }
  });

  it("where there is no such revision, no config, or no weights that we read", async () => {
    expect((await failure(get(`${model}@v2`))).line).toContain("hf://org/tiny@v2: the model has no revision v2");
    for (const [content, words] of [
      [{ "model.safetensors": text("a") }, "the model has no config.json"],
      [{ "config.json": text("{}"), "q4.gguf": text("a") }, "(found q4.gguf)"],
    ] as const) {
      const other = await fakeHub({ "org/tiny": content });
      expect((await failure(get(model, { endpoint: other.endpoint }))).line).toContain(words);
      await other.close();
    }
  });

  it("without a network, unless a complete copy serves", async () => {
    const endpoint = "http://127.0.0.1:9";
    const error = await failure(get(model, { endpoint }));
    expect([error.kind, error.line]).toEqual([
      "stopped",
      expect.stringMatching(/cannot reach http:\/\/127\.0\.0\.1:9 \(.+\); check the network and HF_ENDPOINT/),
    ]);
    expect((await failure(get(model, { offline: true }))).line).toContain(
      "the model is not in the cache, and HF_HUB_OFFLINE is set",
    );
    const dir = await get();
    const events: HubEvent[] = [];
    expect(await get(model, { endpoint, onEvent: (event) => events.push(event) })).toBe(dir);
    expect(events).toEqual([{ type: "cached", why: expect.stringContaining("cannot reach") as string }]);
    expect(await get(`${model}@${commit}`, { offline: true })).toBe(dir);
    hub.trouble.status = 403;
    expect((await failure(get())).kind).toBe("input");
  });
});

describe("names of models of the Hub", () => {
  it("are read into repository and revision, and refused where they are none", () => {
    expect(parseHubReference("hf://org/name")).toEqual({ repo: "org/name", revision: "main" });
    expect(parseHubReference("hf://gpt2@refs/pr/1")).toEqual({ repo: "gpt2", revision: "refs/pr/1" });
    expect([isHubReference("models/a"), isHubReference("hf://a/b")]).toEqual([false, true]);
    for (const bad of [
      "hf://",
      "hf://a/b/c",
      "hf://../b",
      "hf://a/..",
      "hf://a/b@",
      "hf://a/b@../../x",
      "hf://a/b@x/../y",
      "hf://a b/c",
      "hf://a/b--c",
      "hf://a/-b",
      "hf://a/b@x y",
      "hf://a/b@/x",
    ]) {
      expect(() => parseHubReference(bad), bad).toThrow("is no model of the Hub");
    }
    expect(() => parseHubReference("hf://a/b@refs%2Fpr%2f1")).toThrow(
      expect.objectContaining({ hint: "write hf://a/b@refs/pr/1" }),
    );
    expect(() => parseHubReference("hf://a/b@50%")).toThrow(
      expect.objectContaining({ hint: "write hf://org/name or hf://org/name@revision" }),
    );
  });

  it("are what folders of the cache are called by", () => {
    expect(modelName(`/c/hub/models--org--tiny-1.5/snapshots/${commit}`)).toBe("org/tiny-1.5");
    expect(modelName(`/c/hub/models--gpt2/snapshots/${commit}/`)).toBe("gpt2");
    expect(modelName("models/dense")).toBe("dense");
  });
});
