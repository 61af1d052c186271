/** Conversions that measure on text first, as a user runs them: refused, killed, gone on with. */
import { cpSync, existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { randomStream } from "../../src/base/random.js";
import { temporaryFolder } from "../files/io/temporary.js";
import { golden } from "../support/golden.js";
import { withWordTokenizer } from "../support/word-tokenizer.js";
import { weightHashes } from "../surgery/convert/hashes.js";
import { start, upcycle, upcycleJson } from "./upcycle.js";

const root = temporaryFolder();
const readable = (name: string): string => {
  const dir = join(root, name.replace("/", "-"));
  cpSync(golden(name), dir, { recursive: true });
  return withWordTokenizer(dir);
};
const [dense, moe] = [readable("dense/llama"), readable("moe/mixtral")];
const text = join(root, "text.txt");
const kinds = ["the code of a loop", "verse and rhyme of the verse", "a loop a loop code"];
writeFileSync(text, Array.from({ length: 60 }, (_, i) => kinds[(i * i) % 3]).join(" "));
const calibration = ["--calibration", text];

const methods = [
  ["centroids", [dense, "--recipe", "E8G1T2", "--router-init", "centroids"]],
  ["activation", [dense, "--recipe", "E1G8T2", "--shared", "16", "--split", "activation"]],
  ["load", [moe, "--expert-multiply", "3", "--multiply-by", "load"]],
  ["gradient", [moe, "--expert-multiply", "2", "--multiply-by", "gradient"]],
] as const;

describe.each(methods)("convert by %s", (name, args) => {
  const reference = join(root, `${name}-whole`);
  let seconds = 0;
  beforeAll(async () => {
    const begun = performance.now();
    const made = await upcycleJson("convert", ...args, ...calibration, "--out", reference);
    seconds = (performance.now() - begun) / 1000;
    expect(made).toMatchObject({ dryRun: false });
    expect(Number.isFinite((made["preservation"] as { readonly klDivergence: number }).klDivergence)).toBe(true);
  });

  it("says what it would make, and writes nothing", async () => {
    const { code, stdout } = await upcycle("convert", ...args, ...calibration, "--dry-run");
    expect([code, stdout.includes("dry run: nothing was written")]).toEqual([0, true]);
  });

  it("makes the same bytes after kills at random moments", async () => {
    const out = join(root, `${name}-killed`);
    const command = ["convert", ...args, ...calibration, "--out", out];
    const random = randomStream(Date.now(), name);
    for (let kill = 0; kill < 5 && !existsSync(out); kill++) {
      const { process: child, outcome } = start(command);
      const timer = setTimeout(() => child.kill("SIGKILL"), random.uniformAt(kill) * seconds * 1000);
      await outcome;
      clearTimeout(timer);
    }
    // Killed behind the renaming, before it was measured: then the model is there, and complete.
    const last = await upcycle(...command);
    if (last.code !== 0) expect(last.stderr).toContain("not empty");
    expect(weightHashes(out)).toEqual(weightHashes(reference));
  });
});

describe("conversions that measure", () => {
  const refusal = async (...args: readonly string[]): Promise<string> => {
    const { code, stderr } = await upcycle("convert", ...args, "--out", join(root, "never"));
    expect([code, stderr.trim().split("\n").length], stderr).toEqual([2, 1]);
    return stderr.replaceAll(root, "ROOT").replaceAll(/\s+/g, " ");
  };

  it("refuse what cannot be measured", async () => {
    const centroids = ["--router-init", "centroids"];
    expect(await refusal(dense, "--recipe", "E8G1T2", ...centroids, "--calibration", join(root, "no.txt"))).toContain(
      "no.txt",
    );
    expect(
      await refusal(dense, "--recipe", "E8G1T2", ...centroids, ...calibration, "--calibration-tokens", "5"),
    ).toContain("5 tokens cannot have 8 centroids");
    expect(await refusal(golden("dense/llama"), "--recipe", "E8G1T2", ...centroids)).toContain("has no tokenizer.json");
    expect(
      await refusal(dense, "--recipe", "E1G8T2", "--split", "activation", "--target", "mixtral", "--shared", "16"),
    ).toContain("it has no shared expert");
    expect(await refusal(dense, "--recipe", "E4G1T2", "--split", "activation")).toContain(
      "use E1 and a T smaller than G",
    );
    expect(await refusal(dense, "--recipe", "E4G1T2", "--multiply-by", "load")).toContain("--multiply-by: goes with");
    expect(await refusal(dense, "--expert-multiply", "2", "--multiply-by", "load")).toContain("the model is dense");
    expect(existsSync(join(root, "never"))).toBe(false);
  });
});
