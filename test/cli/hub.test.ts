import { cpSync, mkdtempSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { valueAt } from "../../src/base/at.js";
import { commit, fakeHub, type FakeHub } from "../files/hub/server.js";
import { temporaryFolder } from "../files/io/temporary.js";
import { weightHashes } from "../surgery/convert/hashes.js";
import { adapterDir } from "../support/adapters.js";
import { golden } from "../support/golden.js";
import { start, upcycle, upcycleJson } from "./upcycle.js";

const root = temporaryFolder();
const llama = golden("dense/llama");
const lora = adapterDir("llama");
/** A folder with a tokenizer. */
const words = fileURLToPath(new URL("../../models/tiny", import.meta.url));
const filesOf = (dir: string, ...names: string[]): Record<string, Uint8Array> =>
  Object.fromEntries(names.map((name) => [name, new Uint8Array(readFileSync(join(dir, name)))]));
const file = (name: string): Uint8Array => valueAt(filesOf(llama, name), name);
/** The last byte that a header `range: bytes=8-LAST` asks for. */
const lastByteOf = (header: string | undefined): number => Number(/bytes=8-(\d+)$/.exec(header ?? "")?.[1]);
let hub: FakeHub;
const card = (license: string): Uint8Array => new TextEncoder().encode(`---\nlicense: ${license}\n---\nHello\n`);
/** Requests for bytes of the model's weights. */
const bodies = (): string[] =>
  hub.requests.filter((request) => request.includes("/model.safetensors") && !request.endsWith("bytes=0-0"));

beforeAll(async () => {
  hub = await fakeHub({
    "org/tiny": { ...filesOf(llama, "config.json", "model.safetensors"), "README.md": card("llama3.1") },
    "org/lora": { ...filesOf(lora, "adapter_config.json", "adapter_model.safetensors"), "README.md": card("mit") },
    "org/tokenized": {
      ...filesOf(llama, "config.json", "model.safetensors"),
      ...filesOf(words, "tokenizer.json"),
    },
    "org/other": filesOf(adapterDir("phi3"), "adapter_config.json", "adapter_model.safetensors"),
  });
  vi.stubEnv("HF_ENDPOINT", hub.endpoint);
  vi.stubEnv("HF_TOKEN", "");
  vi.stubEnv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1");
});
afterAll(async () => {
  vi.unstubAllEnvs();
  await hub.close();
});

describe("hf:// where a model folder could stand", () => {
  it("is downloaded, interrupted, taken up again, inspected and converted", async () => {
    const cache = mkdtempSync(join(root, "cache-"));
    vi.stubEnv("HF_HUB_CACHE", cache);
    // Once while the header comes, once while the weights come.
    for (const slow of [true, "files"] as const) {
      hub.trouble.slow = slow;
      hub.requests.length = 0;
      const running = start(["convert", "hf://org/tiny", "--recipe", "E4G1T2", "--out", join(root, "never")]);
      await running.saw("header 1 of 1  downloading");
      const awaited = slow === true ? /model\.safetensors bytes=8-/ : /model\.safetensors$/;
      await vi.waitFor(() => expect(hub.requests.some((request) => awaited.test(request))).toBe(true), 30_000);
      running.process.kill("SIGINT");
      const interrupted = await running.outcome;
      expect(interrupted.stderr).toMatch(
        /^hf:\/\/org\/tiny: commit 0123456789ab\n[^\n]*downloading .*\nupcycle: hf:\/\/org\/tiny: download stopped; run the same command to go on\n$/s,
      );
      expect(interrupted.code).toBe(130);
    }
    hub.trouble.slow = false;
    const facts = await upcycleJson("inspect", "hf://org/tiny@v1");
    expect(facts).toMatchObject({ spec: { family: "llama" }, weightFiles: ["model.safetensors"] });
    const conversion = await upcycle("convert", "hf://org/tiny", "--recipe", "E4G1T2", "--out", join(root, "moe"));
    expect(conversion.code, conversion.stderr).toBe(0);
    expect(conversion.stdout).toContain("The two models compute the same function");
    const withoutReport = await upcycle(
      "convert",
      "hf://org/tiny",
      "--recipe",
      "E4G1T2",
      "--no-report",
      "--out",
      join(root, "unmeasured"),
    );
    expect(withoutReport.stdout).toContain("upcycle verify hf://org/tiny ");
    expect(readdirSync(join(root, "moe"))).toContain("model.safetensors");
    expect(JSON.parse(readFileSync(join(root, "moe", "upcycle.json"), "utf8"))).toMatchObject({
      parent: { name: "org/tiny" },
    });
    const readme = readFileSync(join(root, "moe", "README.md"), "utf8");
    expect(readme).toContain("license: llama3.1\nbase_model: org/tiny\n");
    expect(readme).toContain("llama3.1, as the parent's README.md says");
  });

  it("is not downloaded where nothing reads weights", async () => {
    const cache = mkdtempSync(join(root, "cache-"));
    vi.stubEnv("HF_HUB_CACHE", cache);
    hub.requests.length = 0;
    const plan = await upcycle("plan", "hf://org/tiny", "--d1", "1B", "--tokens", "1B", "--recipe", "E4G1T2");
    expect(plan.code, plan.stderr).toBe(0);
    expect(plan.stdout).toContain("org/tiny");
    expect(hub.requests.filter((request) => request.includes("model.safetensors"))).toEqual([]);
    const headers = join(cache, "models--org--tiny", "headers", commit);
    expect(await upcycleJson("inspect", "hf://org/tiny", "--tensors")).toEqual({
      ...(await upcycleJson("inspect", llama, "--tensors")),
      dir: headers,
    });
    const [length, header, ...more] = bodies();
    expect(more).toEqual([]);
    expect(length).toContain("bytes=0-7");
    const { length: size } = file("model.safetensors");
    expect(lastByteOf(header)).toBeLessThan(size / 2);
    hub.requests.length = 0;
    const verdicts = await upcycleJson("targets", "hf://org/tiny");
    expect(verdicts).toEqual(await upcycleJson("targets", llama));
    const dryRun = await upcycle("convert", "hf://org/tiny", "--recipe", "E4G1T2", "--dry-run");
    expect(dryRun.code, dryRun.stderr).toBe(0);
    expect(dryRun.stdout).toBe((await upcycle("convert", llama, "--recipe", "E4G1T2", "--dry-run")).stdout);
    // Headers once fetched are kept; none of this is taken for the model.
    expect(bodies()).toEqual([]);
    const copy = join(root, "copy");
    cpSync(headers, copy, { recursive: true });
    expect((await upcycle("inspect", copy)).code).toBe(0);
    const line =
      `upcycle: ${join(copy, "model.safetensors")}: this file has the header of the weights alone, not the ` +
      "weights; name the model as hf://org/name, so that its weights are downloaded\n";
    const zeros = join(root, "zeros");
    for (const args of [
      ["convert", copy, "--recipe", "E4G1T2", "--out", zeros],
      ["convert", copy, "--recipe", "E4G1T2", "--out", zeros, "--threads", "2"],
      ["diff", llama, copy],
      ["forward", copy, "--input-ids", join(llama, "expected.safetensors"), "--output", zeros],
      ["verify", copy, llama],
      ["export-onnx", copy, "--out", `${zeros}.onnx`],
    ]) {
      const { code, stderr } = await upcycle(...args);
      expect([code, stderr.replace(/^.*(measuring|writing|comparing).*\n/, "")], args[0]).toEqual([2, line]);
    }
    expect(readdirSync(root).filter((name) => name.includes("zeros"))).toEqual([]);
    const conversion = await upcycle("convert", "hf://org/tiny", "--recipe", "E4G1T2", "--out", join(root, "whole"));
    expect(conversion.stdout, conversion.stderr).toContain("The two models compute the same function");
    expect((await upcycleJson("inspect", "hf://org/tiny")).dir).toBe(
      join(cache, "models--org--tiny", "snapshots", commit),
    );
  });

  it("is one process's at a time, waits aloud for a server that is silent, and shows no token", async () => {
    vi.stubEnv("HF_HUB_CACHE", mkdtempSync(join(root, "cache-")));
    vi.stubEnv("HF_TOKEN", "hf_secretOfTheUser");
    vi.stubEnv("HF_HUB_DOWNLOAD_TIMEOUT", "0.5");
    const isTree = (url: string | undefined): boolean => url?.includes("/tree/") === true;
    hub.trouble.instead = ({ url }) => isTree(url);
    const first = start(["convert", "hf://org/tiny", "--recipe", "E4G1T2", "--out", join(root, "never"), "--debug"]);
    await first.saw("trying again: 2 of 5");
    const second = await upcycle("inspect", "hf://org/tiny", "--debug");
    expect([second.code, second.stderr]).toEqual([
      2,
      expect.stringContaining(`another command (process ${first.process.pid}) is working in this folder`) as string,
    ]);
    first.process.kill("SIGINT");
    const { host } = new URL(hub.endpoint);
    const interrupted = await first.outcome;
    expect([interrupted.code, interrupted.stderr]).toEqual([
      130,
      expect.stringContaining(`\nno answer from ${host} for 0.50 s, trying again: 2 of 5\n`) as string,
    ]);
    hub.trouble.instead = ({ url }, response) => {
      if (isTree(url)) response.writeHead(200, { link: '<http://localhost:1/x>; rel="next"' }).end("[]");
      return isTree(url);
    };
    const linked = await upcycle("inspect", "hf://org/tiny", "--debug");
    expect([linked.code, linked.stderr]).toEqual([
      1,
      expect.stringContaining(
        `${host} continues its list of files at another address (http://localhost:1), which is not followed`,
      ) as string,
    ]);
    for (const { stderr } of [interrupted, second, linked]) expect(stderr).not.toContain("secret");
    vi.stubEnv("HF_TOKEN", "");
    vi.stubEnv("HF_HUB_DOWNLOAD_TIMEOUT", "");
    hub.trouble.instead = undefined;
  });

  it("a name that is none, or not there, is one line", async () => {
    vi.stubEnv("HF_HUB_CACHE", mkdtempSync(join(root, "cache-")));
    expect(await upcycle("inspect", "hf://org")).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/^upcycle: hf:\/\/org: the Hub has no such model; [^\n]*\n$/) as string,
    });
    expect(await upcycle("inspect", "hf://a/b/c")).toMatchObject({
      code: 2,
      stderr: 'upcycle: "hf://a/b/c" is no model of the Hub; write hf://org/name or hf://org/name@revision\n',
    });
  });
});

describe("import --like hf://org/model", () => {
  it("takes config and tokenizer, and no weights", async () => {
    vi.stubEnv("HF_HUB_CACHE", mkdtempSync(join(root, "cache-")));
    const megatron = join(root, "megatron");
    await upcycleJson("export", llama, "--format", "megatron", "--out", megatron);
    hub.sent.clear();
    const out = join(root, "imported");
    await upcycleJson("import", megatron, "--like", "hf://org/tokenized", "--out", out);
    expect([...hub.sent.keys()].sort()).toEqual(["org/tokenized/config.json", "org/tokenized/tokenizer.json"]);
    expect(readFileSync(join(out, "tokenizer.json"), "utf8")).toBe(readFileSync(join(words, "tokenizer.json"), "utf8"));
  });
});

describe("hf://org/model+org/adapter", () => {
  it("is converted to the bytes that the two folders are converted to", async () => {
    vi.stubEnv("HF_HUB_CACHE", mkdtempSync(join(root, "cache-")));
    const conversion = await upcycle(
      "convert",
      "hf://org/tiny+org/lora@v1",
      "--recipe",
      "E4G1T2",
      "--out",
      join(root, "adapted"),
    );
    expect(conversion.code, conversion.stderr).toBe(0);
    expect(conversion.stderr).toContain("hf://org/lora@v1: commit 0123456789ab");
    expect(conversion.stdout).toContain("adapter: org/lora, LoRA of ranks 2 to 4 merged into 8 matrices");
    expect(conversion.stdout).toContain("The two models compute the same function");
    expect(JSON.parse(readFileSync(join(root, "adapted", "upcycle.json"), "utf8"))).toMatchObject({
      parent: { name: "org/tiny+org/lora" },
    });
    expect(readFileSync(join(root, "adapted", "README.md"), "utf8")).toContain(
      "licence: mit, as the adapter's README.md says",
    );
    const withoutReport = await upcycle(
      "convert",
      "hf://org/tiny+org/lora@v1",
      "--recipe",
      "E4G1T2",
      "--no-report",
      "--out",
      join(root, "adapted-unmeasured"),
    );
    expect(withoutReport.stdout).toContain("upcycle verify hf://org/tiny+hf://org/lora@v1 ");
    for (const [model, out] of [
      [`${llama}+${lora}`, "adapted-here"],
      [llama, "bare"],
    ] as const) {
      await upcycleJson("convert", model, "--recipe", "E4G1T2", "--no-report", "--out", join(root, out));
    }
    const [theirs, here, bare] = ["adapted", "adapted-here", "bare"].map((name) => weightHashes(join(root, name)));
    expect(theirs).toEqual(here);
    expect(theirs).not.toEqual(bare);
  });

  it("has its model's weights left where they are by what reads none", async () => {
    vi.stubEnv("HF_HUB_CACHE", mkdtempSync(join(root, "cache-")));
    hub.requests.length = 0;
    const [there, here] = ["hf://org/tiny+org/lora", `${llama}+${lora}`] as const;
    const { dir: headers, adapter, ...facts } = await upcycleJson("inspect", there, "--tensors");
    const { dir, adapter: own, ...same } = await upcycleJson("inspect", here, "--tensors");
    expect([dir, facts]).toEqual([llama, same]);
    expect(headers).toContain("headers");
    expect(adapter).toEqual({
      ...(own as object),
      dir: expect.stringContaining("models--org--lora") as string,
      words: "org/lora, LoRA of ranks 2 to 4 merged into 8 matrices",
    });
    expect(await upcycleJson("targets", there)).toEqual(await upcycleJson("targets", here));
    const dryRun = await upcycle("convert", there, "--recipe", "E4G1T2", "--dry-run");
    expect(dryRun.stdout, dryRun.stderr).toContain("adapter: org/lora, LoRA of ranks");
    expect(dryRun.stdout).toBe(
      (await upcycle("convert", here, "--recipe", "E4G1T2", "--dry-run")).stdout.replace(
        "adapter: llama,",
        "adapter: org/lora,",
      ),
    );
    const [length, header, ...more] = bodies();
    expect(more).toEqual([]);
    expect(length).toContain("bytes=0-7");
    expect(lastByteOf(header)).toBeLessThan(file("model.safetensors").length / 2);
    expect(
      hub.requests.some(
        (request) => request.startsWith("GET /org/lora/resolve/") && request.includes("adapter_model.safetensors"),
      ),
    ).toBe(true);
    hub.requests.length = 0;
    const plan = await upcycle("plan", there, "--d1", "1B", "--tokens", "1B", "--recipe", "E4G1T2");
    expect(plan).toEqual({
      code: 2,
      stdout: "",
      stderr:
        "upcycle: hf://org/tiny+hf://org/lora: a plan reads config.json alone, in which an adapter changes " +
        "nothing; leave it out: hf://org/tiny\n",
    });
    expect(hub.requests).toEqual([]);
  });

  it.each([
    ["hf://org/tiny+org/nowhere", "hf://org/nowhere: the Hub has no such model"],
    ["hf://org/tiny+org/tiny", "hf://org/tiny: there is no adapter_config.json"],
    [
      "hf://org/tiny+org/other",
      "has no matrix model.layers.0.mlp.gate_up_proj.weight; is this adapter of another model?",
    ],
    ["hf://org/lora+org/tiny", "hf://org/lora: the model has no config.json"],
  ])("%s is refused in one line", async (name, words) => {
    vi.stubEnv("HF_HUB_CACHE", mkdtempSync(join(root, "cache-")));
    const { code, stdout, stderr } = await upcycle("convert", name, "--recipe", "E4G1T2", "--dry-run");
    const lines = stderr
      .trimEnd()
      .split("\n")
      .filter((line) => !/: commit |downloading /.test(line));
    expect([code, stdout, lines]).toEqual([2, "", [expect.stringContaining(words)]]);
  });
});
