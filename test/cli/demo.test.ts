import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { start } from "./upcycle.js";

const dir = mkdtempSync(join(tmpdir(), "upcycle-demo-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

interface Demo {
  readonly model: string;
  readonly preservation: { readonly relative: number; readonly source: string; readonly verdict: { kind: string } };
  readonly generated: { readonly parent: string; readonly child: string };
}

async function demo(...args: readonly string[]): Promise<Demo> {
  const { code, stdout, stderr } = await start(["demo", "--json", ...args], dir).outcome;
  expect([code, stderr]).toEqual([0, ""]);
  return JSON.parse(stdout) as Demo;
}

describe("upcycle demo", () => {
  it("keeps the function of the model that comes along, on real text, and both write the same", async () => {
    const { model, preservation, generated } = await demo();
    expect(preservation.source).toBe("State of the Union addresses");
    expect(preservation.relative).toBeLessThan(1e-5);
    expect(preservation.verdict.kind).toBe("same");
    expect(generated.child).toBe(generated.parent);
    // A trained model repeats its prompt, and goes on in words: letters for the most part.
    expect(generated.parent).toMatch(/^The Congress of the United States\b.{60,}/s);
    expect(generated.parent.replace(/[^a-z ]/gi, "").length / generated.parent.length).toBeGreaterThan(0.85);
    expect(JSON.parse(readFileSync(join(dir, model, "config.json"), "utf8"))).toMatchObject({
      model_type: "mixtral",
      num_local_experts: 8,
      num_experts_per_tok: 2,
    });
  });

  it("can be run again, and makes its usual folder anew", async () => {
    const { generated } = await demo("--prompt", "My fellow citizens", "--seed", "3");
    expect(generated.parent.startsWith("My fellow citizens")).toBe(true);
  });

  it("replaces neither a folder of the user's nor a model under another name", async () => {
    mkdirSync(join(dir, "mine"));
    writeFileSync(join(dir, "mine", "notes.txt"), "mine");
    const refused = await start(["demo", "--out", "mine"], dir).outcome;
    expect(refused.code).toBe(2);
    expect(readFileSync(join(dir, "mine", "notes.txt"), "utf8")).toBe("mine");
    const model = await start(["demo", "--out", "runs/../runs/demo"], dir).outcome;
    expect(model.code).toBe(2);
    expect(existsSync(join(dir, "runs", "demo", "config.json"))).toBe(true);
  });
});
