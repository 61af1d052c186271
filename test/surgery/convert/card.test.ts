import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { valueAt } from "../../../src/base/at.js";
import { resultOf } from "../../../src/base/events.js";
import { convertCheckpoint } from "../../../src/surgery/convert/convert.js";
import { modelCard } from "../../../src/surgery/convert/card.js";
import { mergeCheckpoint } from "../../../src/surgery/convert/merge.js";
import { readParentCard } from "../../../src/surgery/convert/parent-card.js";
import { trainedFiles } from "../../../src/surgery/convert/trained-card.js";
import { openCheckpoint } from "../../../src/files/checkpoint/open.js";
import { upcycleRecipe } from "../../../src/surgery/planning/recipe.js";
import type { PreservationReport } from "../../../src/model/results/preservation.js";
import { copyModel } from "../../cli/upcycle.js";
import { temporaryFolder } from "../../files/io/temporary.js";
import { golden } from "../../support/golden.js";

const root = temporaryFolder();
let folders = 0;

function folder(files: Readonly<Record<string, string>>): string {
  const dir = join(root, `parent${folders++}`);
  mkdirSync(dir);
  for (const [name, text] of Object.entries(files)) writeFileSync(join(dir, name), text);
  return dir;
}

describe("readParentCard", () => {
  const nothing = {
    license: null,
    licenseName: null,
    licenseLink: null,
    licenseFrom: null,
    licenseFiles: [],
    languages: [],
    repository: null,
    baseModels: [],
  };

  it("reads licence and languages from the front matter, before the config", async () => {
    const dir = folder({
      "README.md":
        "---\r\nlicense: other\r\nlicense_name: llama3.1\nlicense_link: https://example.org/l\nlanguage:\n- " +
        "en\n- de\nbase_model: a/b\n---\n# Text\n",
      LICENSE: "",
      "Notice.txt": "",
      licenses: "",
      "USE_POLICY.md": "",
    });
    expect(await readParentCard(dir, { license: "mit", _name_or_path: "meta-llama/Llama-3.1-8B" })).toEqual({
      license: "other",
      licenseName: "llama3.1",
      licenseLink: "https://example.org/l",
      licenseFrom: "README.md",
      licenseFiles: ["LICENSE", "Notice.txt", "USE_POLICY.md"],
      languages: ["en", "de"],
      repository: "meta-llama/Llama-3.1-8B",
      baseModels: ["a/b"],
    });
  });

  it("falls back on the config, and ignores what it cannot read", async () => {
    expect(await readParentCard(folder({}), { license: "mit" })).toEqual({
      ...nothing,
      license: "mit",
      licenseFrom: "config.json",
    });
    for (const readme of [
      "",
      "# no front matter",
      "---\nlicense: [unclosed\n---\n",
      "---\n- a list\n---\n",
      "---\nlicense:\n  a: b\n---\n",
      '---\nlicense: "two\\nlines"\n---\n',
      "\ufeff---\nlicense",
    ]) {
      expect(await readParentCard(folder({ "README.md": readme }), {})).toEqual(nothing);
    }
    expect(await readParentCard(join(root, "nowhere"), {})).toEqual(nothing);
  });

  it("does not take a path on a disk for a name on the Hub", async () => {
    for (const path of ["/home/me/model", "./a/b", "model", "a/b/c", "..", "C:\\models\\x", "a b/c"]) {
      expect((await readParentCard(folder({}), { _name_or_path: path })).repository).toBeNull();
    }
  });
});

/** Front matter as the Hub takes it out, parsed, and the rest. */
function parts(card: string): {
  readonly matter: Record<string, unknown>;
  readonly yaml: string;
  readonly body: string;
} {
  const [, yaml = "", body = ""] = /^---\n([\s\S]*?)\n---\n([\s\S]*)$/.exec(card)!;
  return { matter: parse(yaml) as Record<string, unknown>, yaml, body };
}

describe("what a hostile parent says of itself", () => {
  it.each([
    ["javascript:alert(1)", null],
    ["data:text/html,x", null],
    ["file:///etc/passwd", null],
    ["https://example.org/a b", null],
    ["//example.org", null],
    ["../LICENSE", null],
    ["HTTPS://example.org/l", "HTTPS://example.org/l"],
    ["http://example.org", "http://example.org"],
    ["LICENSE", "LICENSE"],
    ["NOTICE", null],
  ])("licence link %s becomes %j", async (frontMatter, kept) => {
    const dir = folder({
      "README.md": `---\nlicense: other\nlicense_link: ${JSON.stringify(frontMatter)}\n---\n`,
      LICENSE: "",
    });
    expect((await readParentCard(dir, {})).licenseLink).toBe(kept);
  });

  it("is ignored if it has invisible characters, or is no language and no name of the Hub", async () => {
    const frontMatter = {
      license: "m\u202eit",
      license_name: "x\u0007",
      language: ["en", "<b>", "x\ny"],
      base_model: ["org/name", "../x", "a/b/c", "/home/me", "my-model", "<b>/x"],
    };
    const dir = folder({ "README.md": `---\n${JSON.stringify(frontMatter)}\n---\n` });
    expect(await readParentCard(dir, { _name_or_path: "org/na<b>me" })).toMatchObject({
      license: null,
      licenseName: null,
      languages: ["en"],
      repository: null,
      baseModels: ["org/name"],
    });
  });

  it("comes into the card as text, as does the folder's name: no markup, no front matter, no new lines", async () => {
    const name =
      "<b>x<br> `y` [z](javascript:a) *bold* _em_ snake_case $$m$$ ![i](j)\n---\n# heading\n| a | b |\u001b[31m\u202e";
    const dir = copyModel(golden("dense/llama"), join(root, "hostile", name));
    writeFileSync(
      join(dir, "README.md"),
      `---\n${JSON.stringify({ license: "<script>x</script>", license_name: "`n` | m", license_link: "javascript:x" })}\n---\n`,
    );
    writeFileSync(join(dir, "LICENSE.<img src=x>"), "");
    const out = join(root, "hostile-moe");
    const { card } = await resultOf(convertCheckpoint({ source: dir, recipe: upcycleRecipe("E2G1T1"), out }));
    const { matter, yaml, body } = parts(modelCard({ ...card, warnings: ["tensor <i>`a`</i>\n# b is not used"] }));
    expect(matter).toEqual({
      library_name: "transformers",
      pipeline_tag: "text-generation",
      tags: ["moe", "mixture-of-experts", "upcycled", "mixtral"],
    });
    expect(yaml.split("\n").filter((line) => line.startsWith("#"))).toHaveLength(1);
    // Nothing that HTML, links, code or emphasis begin with is left as it is, but for our own.
    const foreign = body
      .split("\n")
      .filter((line) => /x|img|heading/.test(line) && /parent|upcycled from|licence|tensor|^# /.test(line));
    expect(foreign.length).toBeGreaterThanOrEqual(5);
    for (const line of foreign) {
      const own = line.replace(/^# /, "").replace(/upcycled from \*\*(.*)\*\* with/, "$1");
      expect(own).not.toMatch(/(?<!\\)[<>`[\]*#$]/);
      for (const hidden of ["\u001b", "\u202e"]) expect(line).not.toContain(hidden);
    }
    expect(body.match(/^#+ .*/gm)!.map((line) => line.replace(/\\/g, ""))).toEqual([
      expect.stringMatching(/^# <b>x<br> `y` .* --- # heading .* E2G1T1$/),
      "## The parent's function",
      "## Loading",
    ]);
    expect(body).toContain("snake_case");
    expect(body.split("\n").filter((line) => line.startsWith("---"))).toEqual([]);
  });
});

describe("base_model", () => {
  const cardOf = async (source: string, name: string): Promise<ReturnType<typeof parts>> => {
    await resultOf(convertCheckpoint({ source, recipe: upcycleRecipe("E2G1T1"), out: join(root, name) }));
    return parts(readFileSync(join(root, name, "README.md"), "utf8"));
  };
  const commit = "0123456789abcdef0123456789abcdef01234567";

  it("is a parent's name on the Hub, where it came from there, its config or its card says one", async () => {
    const cached = copyModel(golden("dense/llama"), join(root, "hub", "models--org--tiny", "snapshots", commit));
    expect((await cardOf(cached, "of-hub")).matter["base_model"]).toBe("org/tiny");
    const old = copyModel(golden("dense/llama"), join(root, "hub", "models--gpt2", "snapshots", commit));
    expect((await cardOf(old, "of-old")).matter["base_model"]).toBe("gpt2");
    const tuned = copyModel(golden("dense/llama"), join(root, "tuned"));
    writeFileSync(join(tuned, "README.md"), "---\nbase_model: org/base\n---\n");
    const { matter, body } = await cardOf(tuned, "of-tuned");
    expect(matter["base_model"]).toBe("org/base");
    expect(body).toContain("upcycled from **tuned**");
    const config = JSON.parse(readFileSync(join(tuned, "config.json"), "utf8")) as object;
    writeFileSync(join(tuned, "config.json"), JSON.stringify({ ...config, _name_or_path: "org/named" }));
    expect((await cardOf(tuned, "of-named")).matter["base_model"]).toBe("org/named");
  });

  it("is a comment with the folder's name if there is no name on the Hub, which refuses anything else", async () => {
    const { matter, yaml } = await cardOf(golden("dense/llama"), "of-local");
    expect(matter).not.toHaveProperty("base_model");
    expect(yaml).toMatch(/^# base_model: llama \(a folder; .*\)$/m);
  });

  it("is in the cards of models that are trained, merged or multiplied from a model too", async () => {
    const source = copyModel(golden("dense/llama"), join(root, "hub", "models--org--dense", "snapshots", commit));
    writeFileSync(join(source, "README.md"), "---\nlicense: apache-2.0\n---\n");
    const moe = join(root, "lineage-moe");
    await resultOf(convertCheckpoint({ source, recipe: upcycleRecipe("E4G1T2"), out: moe }));
    const start = await openCheckpoint(moe);
    const texts = await trainedFiles(start).finally(() => start.close());
    const trained = parts(valueAt(texts, "README.md"));
    expect(trained.matter).toEqual({
      license: "apache-2.0",
      base_model: "org/dense",
      library_name: "transformers",
      pipeline_tag: "text-generation",
      tags: ["moe", "mixture-of-experts", "upcycled", "mixtral"],
    });
    expect(trained.body).toContain("# org/dense E4G1T2, trained further");
    expect(trained.body).toContain("| trained from | lineage-moe (mixtral) |");
    expect(trained.body).toContain("| upcycled from | org/dense (llama) |");
    expect(trained.body).toContain("| recipe | E4G1T2, of a llama model |");
    await resultOf(
      mergeCheckpoint({ source: moe, choice: { kind: "mean", weights: null }, out: join(root, "lineage-dense") }),
    );
    expect(parts(readFileSync(join(root, "lineage-dense", "README.md"), "utf8")).matter["base_model"]).toBe(
      "org/dense",
    );
  });
});

describe("the model card", () => {
  const parent = copyModel(golden("dense/llama"), join(root, "tiny|llama"));
  writeFileSync(join(parent, "README.md"), "---\nlicense: apache-2.0\n---\nSecrets of the parent\n");
  writeFileSync(join(parent, "LICENSE"), "Apache License");

  it("is written by every conversion, states what was done, and has nothing of the parent's own card", async () => {
    const out = join(root, "moe");
    const { card } = await resultOf(
      convertCheckpoint({ source: parent, recipe: upcycleRecipe("E8G1T2", { seed: 7 }), out }),
    );
    const text = readFileSync(join(out, "README.md"), "utf8");
    expect(text).toBe(modelCard(card));
    const [, yaml, body] = /^---\n([\s\S]*?)\n---\n([\s\S]*)$/.exec(text)!;
    expect(parse(yaml!)).toEqual({
      license: "apache-2.0",
      library_name: "transformers",
      pipeline_tag: "text-generation",
      tags: ["moe", "mixture-of-experts", "upcycled", "mixtral"],
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
    const cardOf = async (
      source: string,
      name: string,
      ...recipe: Parameters<typeof upcycleRecipe>
    ): Promise<string> => {
      await resultOf(convertCheckpoint({ source, recipe: upcycleRecipe(...recipe), out: join(root, name) }));
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
    expect(qwen).toContain(
      "| llama.cpp | loads it, but computes **another function**: always renormalises qwen3_moe |",
    );
  });

  it("is the same for the same conversion into another folder", async () => {
    const cards: string[] = [];
    for (const name of ["first", "second"]) {
      await resultOf(convertCheckpoint({ source: parent, recipe: upcycleRecipe("E4G2T2"), out: join(root, name) }));
      cards.push(readFileSync(join(root, name, "README.md"), "utf8"));
    }
    expect(cards[0]).toBe(cards[1]);
  });

  it("states what was measured, and the verdict", async () => {
    const { card } = await resultOf(
      convertCheckpoint({
        source: parent,
        recipe: upcycleRecipe("E2G1T1"),
        out: join(root, "measured"),
      }),
    );
    const preservation: PreservationReport = {
      version: 1,
      tokens: 256,
      sequence: 256,
      unreached: [],
      source: "book.txt",
      parentLoss: 2.5,
      childLoss: 2.75,
      maxAbsLogitDiff: 0.5,
      meanAbsLogitDiff: 0.01,
      maxAbsLogit: 20,
      relative: 0.025,
      klDivergence: 0.002,
      topAgreement: 0.984375,
      layers: [
        { layer: 0, relative: 0.01, largest: 0.02 },
        { layer: 1, relative: 0.03, largest: 0.01 },
      ],
      precision: { parent: "BF16", child: "BF16" },
      streamed: true,
      verdict: { kind: "different", tolerance: 0.02, words: "They differ." },
    };
    const text = modelCard({ ...card, preservation });
    for (const part of [
      "Measured on 256 tokens of book.txt",
      "| loss of the parent | 2.50000 |",
      "| loss of this model | 2.75000 |",
      "| largest logit difference | 0.500, 0.0250 of the largest logit |",
      "| same likeliest token | 98.44 % |",
      "| relative error of an FFN | 0.0300 at most (layer 1) |",
      "They differ.",
    ])
      expect(text).toContain(part);
    expect(text).not.toContain("Not measured");
  });
});
