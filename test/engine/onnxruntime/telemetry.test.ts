/** What onnxruntime's own telemetry would leave behind, seen from outside: compiled code in processes of its own. */
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { built, runScript } from "../../support/built.js";
import { golden } from "../../support/golden.js";

let home: string;
beforeEach(() => (home = mkdtempSync(join(tmpdir(), "upcycle-home-"))));
afterEach(() => rmSync(home, { recursive: true, force: true }));

/** Logits of a model, by an engine in a thread of its own or in the main thread, in a home without files. */
const script = (engine: string): string => `
  process.env.HOME = ${JSON.stringify(home)};
  process.env.UPCYCLE_CACHE = "off";
  if (process.argv[2] === "unset") delete process.env.ORT_DISABLE_TELEMETRY;
  else process.env.ORT_DISABLE_TELEMETRY = process.argv[2];
  const { openModel } = await import("${built("evals/model.js")}");
  ${engine}
  const model = await openModel(${JSON.stringify(golden("dense/llama"))}, backend, 1);
  await model.logits(Int32Array.of(1, 2, 3), { batch: 1, sequence: 3 });
  await model.close();
  console.log(process.env.ORT_DISABLE_TELEMETRY);`;
const threaded = `const { onnxruntimeBackend: backend } = await import("${built("engine/onnxruntime/backend.js")}");`;
const direct = `
  const { openForwardRuntime } = await import("${built("engine/onnxruntime/forward-runtime.js")}");
  const backend = { openForward: (options) => openForwardRuntime(options) };`;

describe("onnxruntime's telemetry", () => {
  it.each([
    ["a thread of its own", threaded],
    ["the main thread", direct],
  ])("is off with an engine in %s: no device id and no events in the home", async (_, engine) => {
    const { code, stdout, stderr } = await runScript(script(engine), ["unset"]).ended;
    expect([code, stdout, stderr]).toEqual([0, "1\n", ""]);
    expect(readdirSync(home, { recursive: true })).toEqual([]);
  });

  it("is what the user's environment says", async () => {
    const { stdout, stderr } = await runScript(script(threaded), ["true"]).ended;
    expect([stdout, stderr]).toEqual(["true\n", ""]);
  });
});
