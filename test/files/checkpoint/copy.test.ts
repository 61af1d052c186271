import { mkdirSync, readFileSync, readdirSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { valueAt } from "../../../src/base/at.js";
import { copyFiles, findCarried } from "../../../src/files/checkpoint/copy.js";
import { isCarried } from "../../../src/files/formats/model-files.js";
import { failure, fresh } from "./folders.js";

function folder(files: Readonly<Record<string, string>>): string {
  const dir = fresh();
  mkdirSync(dir);
  for (const [name, text] of Object.entries(files)) writeFileSync(join(dir, name), text);
  return dir;
}

async function carried(from: string): Promise<Record<string, string>> {
  const to = folder({});
  const { names, bytes } = await findCarried(from);
  await copyFiles(from, to, names);
  const contents = Object.fromEntries(readdirSync(to).map((name) => [name, readFileSync(join(to, name), "utf8")]));
  expect(bytes).toBeGreaterThanOrEqual(Object.values(contents).reduce((sum, text) => sum + text.length, 0));
  return contents;
}

describe("carried files", () => {
  it("tokenizer, generation settings, templates and licences go along, byte for byte", async () => {
    const files = {
      "LICENSE.txt": "a",
      NOTICE: "b",
      "USE_POLICY.md": "c",
      "generation_config.json": "{ }",
      "tokenizer.json": "{ }",
      "tokenizer_config.json":
        '{"tokenizer_class":"LlamaTokenizerFast","model_max_length":1000000000000000019884624838656}',
      "tokenizer.model": "\u0001",
      "vocab.json": "{}",
      "merges.txt": "",
      "chat_template.jinja": "{{ x }}",
      "special_tokens_map.json": "{}",
    };
    const dir = folder({
      ...files,
      "README.md": "old",
      "modeling_x.py": "",
      "pytorch_model.bin": "",
      "model.safetensors.index.json": "",
      "config.json": "{}",
    });
    mkdirSync(join(dir, "LICENSES"));
    mkdirSync(join(dir, "LICENSE"));
    expect(await carried(dir)).toEqual(files);
    expect(["license-MIT", "Notice.txt", "LICENCE"].every(isCarried)).toBe(true);
    expect(["licensed.json", "noticeable", "tokenizer.json.bak"].some(isCarried)).toBe(false);
  });

  it("a tokenizer without its config gets one", async () => {
    const dir = folder({
      "tokenizer.json": '{"added_tokens": [{"id": 1, "content": "<end>"}]}',
      "config.json": '{"eos_token_id": 1, "max_position_embeddings": 64}',
    });
    const contents = await carried(dir);
    expect(Object.keys(contents).sort()).toEqual(["tokenizer.json", "tokenizer_config.json"]);
    expect(JSON.parse(valueAt(contents, "tokenizer_config.json"))).toEqual({
      tokenizer_class: "PreTrainedTokenizerFast",
      model_max_length: 64,
      clean_up_tokenization_spaces: false,
      eos_token: "<end>",
    });
  });

  it("files that are far too large to be a tokenizer's are refused with their size", async () => {
    const dir = folder({ "tokenizer.json": "{}" });
    truncateSync(join(dir, "tokenizer.json"), 3e8);
    expect((await failure(findCarried(dir))).line).toContain(
      "tokenizer.json: file has 300 MB, the limit for this is 256 MB",
    );
  });

  it("a file to be carried that is broken is named in the error", async () => {
    const deep = folder({
      "tokenizer.json": "{}",
      "tokenizer_config.json": `{"chat_template": ${"[".repeat(1e5)}${"]".repeat(1e5)}}`,
    });
    expect((await failure(findCarried(deep))).line).toContain(
      "tokenizer_config.json: lists and objects are nested more than 500 levels deep",
    );
    expect((await failure(findCarried(folder({ "tokenizer.json": "{" })))).line).toContain(
      "tokenizer.json: not valid JSON",
    );
    expect((await failure(findCarried(join(fresh(), "none")))).line).toContain(
      "cannot list folder: no such file or folder",
    );
  });
});
