import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { convertCheckpoint } from "../../src/convert/convert.js";
import { modelCard } from "../../src/convert/card.js";
import { readParentCard } from "../../src/convert/parent-card.js";
import { upcycleRecipe } from "../../src/surgery/recipe.js";
import type { PreservationReport } from "../../src/report/preservation.js";
import { copyModel } from "../cli/upcycle.js";
import { temporaryFolder } from "../io/temporary.js";
import { golden } from "../support/golden.js";

const root = temporaryFolder();
let made = 0;

function folder(files: Readonly<Record<string, string>>): string {
  const dir = join(root, `parent${made++}`);
  mkdirSync(dir);
  for (const [name, text] of Object.entries(files)) writeFileSync(join(dir, name), text);
  return dir;
}

describe("readParentCard", () => {
  const nothing = { license: null, licenseName: null, licenseLink: null, licenseFrom: null, licenseFiles: [], languages: [], repository: null };

  it("reads licence and languages from the front matter, before the config", async () => {
    const dir = folder({
      "README.md": "---\r\nlicense: other\r\nlicense_name: llama3.1\nlicense_link: https://example.org/l\nlanguage:\n- en\n- de\nbase_model: a/b\n---\n# Text\n",
      "LICENSE": "", "Notice.txt": "", "licenses": "", "USE_POLICY.md": "",
    });
    expect(await readParentCard(dir, { license: "mit", _name_or_path: "meta-llama/Llama-3.1-8B" })).toEqual({
      license: "other", licenseName: "llama3.1", licenseLink: "https://example.org/l", licenseFrom: "README.md",
      licenseFiles: ["LICENSE", "Notice.txt", "USE_POLICY.md"], languages: ["en", "de"], repository: "meta-llama/Llama-3.1-8B",
    });
  });

  it("falls back on the config, and takes what it cannot read for nothing", async () => {
    expect(await readParentCard(folder({}), { license: "mit" })).toEqual({ ...nothing, license: "mit", licenseFrom: "config.json" });
    for (const readme of ["", "# no front matter", "---\nlicense: [unclosed\n---\n", "---\n- a list\n---\n", "---\nlicense:\n  a: b\n---\n", '---\nlicense: "two\\nlines"\n---\n', "\ufeff---\nlicense"]) {
      expect(await readParentCard(folder({ "README.md": readme }), {})).toEqual(nothing);
    }
    expect(await readParentCard(join(root, "nowhere"), {})).toEqual(nothing);
  });

  it("takes a path on a disk for no name on the Hub", async () => {
    for (const path of ["/home/me/model", "./a/b", "model", "a/b/c", "..", "C:\\models\\x", "a b/c"]) {
      expect((await readParentCard(folder({}), { _name_or_path: path })).repository).toBeNull();
    }
  });
});

describe("the model card", () => {
  const parent = copyModel(golden("dense/llama"), join(root, "tiny|llama"));
  writeFileSync(join(parent, "README.md"), "---\nlicense: apache-2.0\n---\nSecrets of the parent\n");
  writeFileSync(join(parent, "LICENSE"), "Apache License");

  it("comes with every conversion, states what was done, and carries nothing of the parent's own card", async () => {
    const out = join(root, "moe");
    const { card } = await convertCheckpoint({ source: parent, recipe: upcycleRecipe("E8G1T2", { seed: 7 }), out });
    const text = readFileSync(join(out, "README.md"), "utf8");
    expect(text).toBe(modelCard(card));
    const [, yaml, body] = /^---\n([\s\S]*?)\n---\n([\s\S]*)$/.exec(text)!;
    expect(parse(yaml!)).toEqual({
      license: "apache-2.0", library_name: "transformers", pipeline_tag: "text-generation", tags: ["moe", "mixture-of-experts", "upcycled", "mixtral"],
    });
    expect(body).toContain("| parent | tiny\\|llama (llama)");
    expect(body).toContain("| seed | 7 |");
    expect(body).toContain("8 experts of size 64 in place of one FFN of 64, 2 per token");
    expect(body).toContain("apache-2.0, as the parent's README.md says; LICENSE beside this file");
    expect(body).toContain("Not measured.");
    expect(body).not.toContain("Secrets");
    expect(body).not.toContain(root);
  });

  it("says which programs load it with the same function", async () => {
    const cardOf = async (source: string, name: string, ...recipe: Parameters<typeof upcycleRecipe>): Promise<string> => {
      await convertCheckpoint({ source, recipe: upcycleRecipe(...recipe), out: join(root, name) });
      return readFileSync(join(root, name, "README.md"), "utf8");
    };
    const mixtral = await cardOf(parent, "served", "E8G1T2");
    expect(mixtral).toContain("| vLLM | computes the same function |");
    expect(mixtral).toContain("| Megatron-Bridge | does not load it: has no bridge |");
    expect(mixtral).toContain("vllm serve");
    const granite = await cardOf(parent, "unserved", "E8G1T2", { target: "granitemoe_swa" });
    expect(granite).toContain("| vLLM | does not load it");
    expect(granite).not.toContain("vllm serve");
    const qwen = await cardOf(golden("dense/qwen3"), "other", "E8G1T2", { target: "qwen3_moe", order: "softmax-topk" });
    expect(qwen).toContain("| llama.cpp | loads it, but computes **another function**: always renormalises qwen3_moe |");
  });

  it("is the same for the same conversion, wherever it goes", async () => {
    const cards: string[] = [];
    for (const name of ["first", "second"]) {
      await convertCheckpoint({ source: parent, recipe: upcycleRecipe("E4G2T2"), out: join(root, name) });
      cards.push(readFileSync(join(root, name, "README.md"), "utf8"));
    }
    expect(cards[0]).toBe(cards[1]);
  });

  it("states what was measured, and its verdict", async () => {
    const { card } = await convertCheckpoint({ source: parent, recipe: upcycleRecipe("E2G1T1"), out: join(root, "measured") });
    const preservation: PreservationReport = {
      version: 1, tokens: 256, sequence: 256, source: "book.txt", parentLoss: 2.5, childLoss: 2.75, maxAbsLogitDiff: 0.5, meanAbsLogitDiff: 0.01, maxAbsLogit: 20,
      relative: 0.025, klDivergence: 0.002, topAgreement: 0.984375, layers: [{ layer: 0, relative: 0.01, largest: 0.02 }, { layer: 1, relative: 0.03, largest: 0.01 }],
      precision: { parent: "BF16", child: "BF16" }, streamed: true, verdict: { kind: "different", tolerance: 0.02, words: "They differ." },
    };
    const text = modelCard({ ...card, preservation });
    for (const part of [
      "Measured on 256 tokens of book.txt", "| loss of the parent | 2.50000 |", "| loss of this model | 2.75000 |", "| largest logit difference | 0.500, 0.0250 of the largest logit |",
      "| same likeliest token | 98.44 % |", "| relative error of an FFN | 0.0300 at most (layer 1) |", "They differ.",
    ]) expect(text).toContain(part);
    expect(text).not.toContain("Not measured");
  });
});
