import { cpSync, mkdtempSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { commit, fakeHub, type FakeHub } from "../hub/server.js";
import { temporaryFolder } from "../io/temporary.js";
import { golden } from "../support/golden.js";
import { start, upcycle, upcycleJson } from "./upcycle.js";

const root = temporaryFolder();
const file = (name: string): Uint8Array => new Uint8Array(readFileSync(join(golden("dense/llama"), name)));
let hub: FakeHub;

beforeAll(async () => {
  hub = await fakeHub("org/tiny", { "config.json": file("config.json"), "model.safetensors": file("model.safetensors") });
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
    hub.trouble.slow = true;
    const running = start(["convert", "hf://org/tiny", "--recipe", "E4G1T2", "--out", join(root, "never")]);
    await running.saw("downloading");
    running.process.kill("SIGINT");
    const stopped = await running.outcome;
    expect(stopped.stderr).toMatch(/^hf:\/\/org\/tiny: commit 0123456789ab\ndownloading .*\nupcycle: hf:\/\/org\/tiny: download stopped; run the same command to go on\n$/s);
    expect(stopped.code).toBe(130);
    hub.trouble.slow = false;
    const facts = await upcycleJson("inspect", "hf://org/tiny@v1");
    expect(facts).toMatchObject({ spec: { family: "llama" }, weightFiles: ["model.safetensors"] });
    const made = await upcycle("convert", "hf://org/tiny", "--recipe", "E4G1T2", "--out", join(root, "moe"));
    expect(made.code, made.stderr).toBe(0);
    expect(made.stdout).toContain("The two models compute the same function");
    const unmeasured = await upcycle("convert", "hf://org/tiny", "--recipe", "E4G1T2", "--no-report", "--out", join(root, "unmeasured"));
    expect(unmeasured.stdout).toContain("upcycle verify hf://org/tiny ");
    expect(readdirSync(join(root, "moe"))).toContain("model.safetensors");
    expect(JSON.parse(readFileSync(join(root, "moe", "upcycle.json"), "utf8"))).toMatchObject({ parent: { name: "org/tiny" } });
  });

  it("is not downloaded where nothing reads weights", async () => {
    const cache = mkdtempSync(join(root, "cache-"));
    vi.stubEnv("HF_HUB_CACHE", cache);
    const bodies = (): string[] => hub.requests.filter((request) => request.includes("model.safetensors") && !request.endsWith("bytes=0-0"));
    hub.requests.length = 0;
    const plan = await upcycle("plan", "hf://org/tiny", "--d1", "1B", "--tokens", "1B", "--recipe", "E4G1T2");
    expect(plan.code, plan.stderr).toBe(0);
    expect(plan.stdout).toContain("org/tiny");
    expect(hub.requests.filter((request) => request.includes("model.safetensors"))).toEqual([]);
    const folder = golden("dense/llama");
    const headers = join(cache, "models--org--tiny", "headers", commit);
    expect(await upcycleJson("inspect", "hf://org/tiny", "--tensors")).toEqual({ ...(await upcycleJson("inspect", folder, "--tensors")), dir: headers });
    const [length, header, ...more] = bodies();
    expect(more).toEqual([]);
    expect(length).toContain("bytes=0-7");
    const { length: size } = file("model.safetensors");
    expect(Number(/bytes=8-(\d+)$/.exec(header!)![1])).toBeLessThan(size / 2);
    hub.requests.length = 0;
    const verdicts = await upcycleJson("targets", "hf://org/tiny");
    expect(verdicts).toEqual(await upcycleJson("targets", folder));
    const shown = await upcycle("convert", "hf://org/tiny", "--recipe", "E4G1T2", "--dry-run");
    expect(shown.code, shown.stderr).toBe(0);
    expect(shown.stdout).toBe((await upcycle("convert", folder, "--recipe", "E4G1T2", "--dry-run")).stdout);
    // Headers once fetched are kept; none of this is taken for the model.
    expect(bodies()).toEqual([]);
    const copy = join(root, "copy");
    cpSync(headers, copy, { recursive: true });
    expect((await upcycle("inspect", copy)).code).toBe(0);
    const line = `upcycle: ${join(copy, "model.safetensors")}: this file has the header of the weights alone, not the weights; name the model as hf://org/name, so that its weights are downloaded\n`;
    for (const args of [["convert", copy, "--recipe", "E4G1T2", "--out", join(root, "zeros")], ["convert", copy, "--recipe", "E4G1T2", "--out", join(root, "zeros"), "--threads", "2"], ["diff", folder, copy]]) {
      expect(await upcycle(...args)).toMatchObject({ code: 2, stderr: line });
    }
    expect(readdirSync(root).filter((name) => name.includes("zeros"))).toEqual([]);
    const made = await upcycle("convert", "hf://org/tiny", "--recipe", "E4G1T2", "--out", join(root, "whole"));
    expect(made.stdout, made.stderr).toContain("The two models compute the same function");
    expect((await upcycleJson("inspect", "hf://org/tiny")).dir).toBe(join(cache, "models--org--tiny", "snapshots", commit));
  });

  it("a name that is none, or not there, is one line", async () => {
    vi.stubEnv("HF_HUB_CACHE", mkdtempSync(join(root, "cache-")));
    expect(await upcycle("inspect", "hf://org")).toMatchObject({ code: 2, stderr: expect.stringMatching(/^upcycle: hf:\/\/org: the Hub has no such model; [^\n]*\n$/) as string });
    expect(await upcycle("inspect", "hf://a/b/c")).toMatchObject({ code: 2, stderr: 'upcycle: "hf://a/b/c" is no model of the Hub; write hf://org/name or hf://org/name@revision\n' });
  });
});
