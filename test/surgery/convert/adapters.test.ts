/** Conversions of models with LoRA adapters. Threads and child processes run compiled code. */
import {
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { UpcycleError } from "../../../src/base/errors.js";
import { openCheckpoint } from "../../../src/files/checkpoint/open.js";
import { askedModel } from "../../../src/cli/model-folder.js";
import { namedModel } from "../../../src/cli/model-words.js";
import { modelWords } from "../../../src/base/schemas/index.js";
import type { MakeEvent, PlannedModel } from "../../../src/surgery/convert/make.js";
import { resultOf } from "../../../src/base/events.js";
import { convertCheckpoint, type ConvertOptions } from "../../../src/surgery/convert/convert.js";
import { unfinishedName } from "../../../src/files/io/resumable-directory.js";
import { upcycleRecipe, type UpcycleRecipe } from "../../../src/surgery/planning/recipe.js";
import { refusalOf } from "../../cli/in-process.js";
import { upcycle, upcycleJson } from "../../cli/upcycle.js";
import { temporaryFolder } from "../../files/io/temporary.js";
import {
  adapterCases,
  adapterDir,
  baseDir,
  changedAdapter,
  mergedFolder,
  rounded,
  tensorsOf,
  writeTensors,
  type AdapterCase,
} from "../../support/adapters.js";
import { runScript, type Ended } from "../../support/built.js";
import { hashes, weightHashes } from "./hashes.js";
import { conversionScript, expectKillsHarmless, killedAfter, pace, type ConversionRequest } from "./kills.js";

const root = temporaryFolder();
let folders = 0;
const fresh = (): string => join(root, `out${folders++}`);
const adapted = (name: AdapterCase): { model: string; adapter: string } => ({
  model: baseDir(name),
  adapter: adapterDir(name),
});
const convert = async (
  source: ConvertOptions["source"],
  recipe: UpcycleRecipe,
  { onEvent, ...more }: Partial<ConvertOptions> & { onEvent?: (event: MakeEvent<PlannedModel>) => void } = {},
): Promise<string> => {
  const out = more.out ?? fresh();
  await resultOf(convertCheckpoint({ source, recipe, out, ...more }), onEvent);
  return out;
};
async function mergedOf(source: { model: string; adapter: string }): Promise<string> {
  const open = await openCheckpoint(source);
  try {
    return await mergedFolder(open, fresh());
  } finally {
    await open.close();
  }
}

/** Turns the signs of all values in a file, in place; twice: nothing. */
function changeValues(path: string): void {
  const tensors = tensorsOf(path);
  for (const { dtype, bytes } of tensors.values()) {
    expect(dtype).toBe("F32");
    for (let i = 3; i < bytes.length; i += 4) bytes[i]! ^= 0x80;
  }
  writeTensors(path, tensors);
}

describe("a model with an adapter", () => {
  it.each(adapterCases)("%s converts to the bytes that its merged folder converts to", async (name) => {
    const merged = await mergedOf(adapted(name));
    for (const recipe of [
      upcycleRecipe("E4G2T2"),
      upcycleRecipe("E2G1T1", { drop: 0.5, noise: { std: 0.1, relative: true, fraction: 1 } }),
    ]) {
      expect(weightHashes(await convert(adapted(name), recipe))).toEqual(weightHashes(await convert(merged, recipe)));
    }
  });

  it("is rounded once in bfloat16, as its merged float32 folder written in bfloat16 is", async () => {
    const source = { model: rounded("dense/llama", fresh(), "BF16"), adapter: adapterDir("llama") };
    const recipe = upcycleRecipe("E4G2T2");
    const out = await convert(source, recipe);
    expect(weightHashes(out)).toEqual(weightHashes(await convert(await mergedOf(source), recipe, { dtype: "BF16" })));
  });

  it("gives the same bytes with threads, with small chunks, and after an interruption", async () => {
    const recipe = upcycleRecipe("E4G2T4", { seed: 3 });
    const reference = hashes(await convert(adapted("phi3"), recipe));
    for (const threads of [1, 2])
      expect(hashes(await convert(adapted("phi3"), recipe, { threads, pace }))).toEqual(reference);
    const out = fresh();
    const abort = new AbortController();
    let progressCount = 0;
    const stopped = convert(adapted("phi3"), recipe, {
      out,
      pace,
      signal: abort.signal,
      onEvent: ({ type }) => void (type === "progress" && ++progressCount === 60 && abort.abort()),
    });
    await expect(stopped).rejects.toThrow("written");
    const events: MakeEvent<PlannedModel>[] = [];
    await convert(adapted("phi3"), recipe, { out, pace, onEvent: (event) => events.push(event) });
    expect(events[1]).toMatchObject({ type: "resumed" });
    expect(hashes(out)).toEqual(reference);
  });

  it("is not resumed with another adapter, or with one that has changed", async () => {
    const recipe = upcycleRecipe("E4G2T4");
    const folder = changedAdapter("llama", join(root, "mine"), {});
    const out = fresh();
    const stop = async (): Promise<void> => {
      const abort = new AbortController();
      await expect(
        convert({ model: baseDir("llama"), adapter: folder }, recipe, {
          out,
          pace,
          signal: abort.signal,
          onEvent: ({ type }) => void (type === "progress" && abort.abort()),
        }),
      ).rejects.toThrow("written");
    };
    await stop();
    const events: MakeEvent<PlannedModel>[] = [];
    await convert(adapted("rslora"), recipe, { out, pace, onEvent: (event) => events.push(event) });
    expect(events[1]).toMatchObject({ type: "replaced" });
    rmSync(out, { recursive: true });
    await stop();
    const path = join(folder, "adapter_config.json");
    writeFileSync(path, readFileSync(path, "utf8").replace('"lora_alpha": 6', '"lora_alpha": 600'));
    const error: unknown = await convert({ model: baseDir("llama"), adapter: folder }, recipe, { out, pace }).catch(
      (cause: unknown) => cause,
    );
    expect((error as UpcycleError).line).toContain("adapter_config.json");
  });

  it("does not accept a finished folder that was made with another adapter of the same name", async () => {
    const [mine, theirs] = ["mine", "theirs"].map((place) =>
      changedAdapter(
        "llama",
        join(root, "finished", place, "lora"),
        {},
        place === "mine"
          ? undefined
          : (tensors) => {
              // The sign of every other value: of all, B and A would multiply to the same.
              for (const { bytes } of tensors.values()) for (let i = 3; i < bytes.length; i += 8) bytes[i]! ^= 0x80;
            },
      ),
    ) as [string, string];
    for (const folder of [mine, theirs])
      for (const file of ["adapter_config.json", "adapter_model.safetensors"]) utimesSync(join(folder, file), 1e9, 1e9);
    const conversion = {
      source: { model: baseDir("llama"), adapter: mine },
      recipe: upcycleRecipe("E4G2T4"),
      out: fresh(),
      acceptFinished: true,
    };
    await resultOf(convertCheckpoint(conversion));
    expect((await resultOf(convertCheckpoint(conversion))).found).toBe(true);
    await expect(
      resultOf(convertCheckpoint({ ...conversion, source: { ...conversion.source, adapter: theirs } })),
    ).rejects.toThrow("not empty");
  });

  it("gives the same bytes after kills at random moments", async () => {
    const conversion: ConversionRequest = {
      source: adapted("phi3"),
      recipe: upcycleRecipe("E4G2T4", { seed: 3 }),
      maxShardBytes: 60_000,
      pace,
    };
    const reference = await convert(conversion.source, conversion.recipe, conversion);
    await expectKillsHarmless(conversion, { kills: 8, expected: hashes(reference), fresh });
  }, 120_000);

  it("is resumed after a kill with the same adapter alone", async () => {
    const folder = changedAdapter("llama", fresh(), {});
    const conversion: ConversionRequest = {
      source: { model: baseDir("llama"), adapter: folder },
      recipe: upcycleRecipe("E4G2T4"),
      pace,
    };
    const again = (out: string): Promise<Ended> => runScript(conversionScript(conversion), [out]).ended;
    const [reference, out, file] = [
      await convert(conversion.source, conversion.recipe, conversion),
      fresh(),
      join(folder, "adapter_model.safetensors"),
    ];
    const before = statSync(file);
    expect((await killedAfter(conversion, out, 90)).killed).toBe(true);
    expect([existsSync(out), existsSync(unfinishedName(out))]).toEqual([false, true]);
    // The same names and sizes, other values, as training goes on.
    changeValues(file);
    const refused = await again(out);
    expect(refused.code).toBe(2);
    expect(refused.stdout).toContain(`failed input: ${file}: the source changed since this conversion began: `);
    expect(refused.stdout).toContain(
      `put it back to go on, or remove ${unfinishedName(out)} to start over with the source as it is\n`,
    );
    expect(existsSync(out)).toBe(false);
    changeValues(file);
    utimesSync(file, before.atime, before.mtime);
    expect(await again(out)).toMatchObject({ code: 0, stdout: "" });
    expect(hashes(out)).toEqual(hashes(reference));
  });

  it("ends in an error if the adapter changes while it is read, and nothing that was read from it is written", async () => {
    const [folder, out] = [changedAdapter("llama", fresh(), {}), fresh()];
    let progressCount = 0;
    const onEvent = ({ type }: MakeEvent<PlannedModel>): void =>
      void (type === "progress" && ++progressCount === 20 && changeValues(join(folder, "adapter_model.safetensors")));
    await expect(
      convert({ model: baseDir("llama"), adapter: folder }, upcycleRecipe("E4G2T4"), { out, pace, onEvent }),
    ).rejects.toThrow("the source changed while it was read");
    expect([existsSync(out), existsSync(unfinishedName(out))]).toEqual([false, false]);
  });

  it("is named by the record and the card, and measured against the merged parent", async () => {
    const dir = join(root, "named");
    mkdirSync(dir);
    cpSync(baseDir("llama"), join(dir, "tiny"), { recursive: true });
    cpSync(adapterDir("llama"), join(dir, "poems"), { recursive: true });
    writeFileSync(join(dir, "poems", "README.md"), "---\nlicense: mit\n---\n");
    const out = fresh();
    const words = `${join(dir, "tiny")}+${join(dir, "poems")}`;
    const { code, stdout, stderr } = await upcycle("convert", words, "--recipe", "E4G1T2", "--out", out);
    expect(code, stderr).toBe(0);
    expect(stdout).toContain("adapter: poems, LoRA of ranks 2 to 4 merged into 8 matrices");
    expect(stdout).toContain("The two models compute the same function");
    expect(JSON.parse(readFileSync(join(out, "upcycle.json"), "utf8"))).toMatchObject({
      parent: { name: "tiny+poems" },
    });
    const card = readFileSync(join(out, "README.md"), "utf8");
    expect(card).toContain("# tiny+poems E4G1T2");
    expect(card).toContain(
      "| its adapter | poems, LoRA of ranks 2 to 4 merged into 8 matrices; licence: mit, as the adapter's " +
        "README.md says |",
    );
    expect(card).toContain("the parent with its adapter merged in and this model evaluated in float32");
    const [verified, bare] = [
      await upcycleJson("verify", words, out, "--tokens", "50", "--threads", "1"),
      await upcycle("verify", join(dir, "tiny"), out, "--tokens", "50", "--threads", "1"),
    ];
    expect(verified.relative).toBeLessThanOrEqual(1e-5);
    // The bare base is another model.
    expect(bare.code).toBe(1);
    expect(bare.stderr).toContain("upcycle.json promises the function of tiny+poems");
  });

  it("may not be written over", async () => {
    const folder = changedAdapter("llama", join(root, "holder", "adapter"), {});
    await expect(
      convert({ model: baseDir("llama"), adapter: folder }, upcycleRecipe("E2G1T1"), {
        out: join(root, "holder"),
        overwrite: true,
      }),
    ).rejects.toThrow("the source folder lies inside this folder");
  });
});

describe("upcycle convert --mergekit with adapters", () => {
  const folder = join(root, "mix");
  mkdirSync(folder);
  cpSync(baseDir("llama"), join(folder, "base"), { recursive: true });
  cpSync(adapterDir("llama"), join(folder, "coder"), { recursive: true });
  cpSync(adapterDir("rslora"), join(folder, "poet"), { recursive: true });
  const file = (text: string): string => {
    const path = join(folder, `mix${folders++}.yaml`);
    writeFileSync(path, text);
    return path;
  };

  it("makes what the merged models make", async () => {
    const out = fresh();
    const text =
      "base_model: base+poet\ngate_mode: random\nexperts:\n  - source_model: base+coder\n  - source_model: " +
      "{model: {path: base}, lora: {path: poet}}\n  - source_model: base\n";
    const output = await upcycleJson("convert", "--mergekit", file(text), "--out", out, "--no-report");
    expect(output).toMatchObject({ recipe: { parents: [{ source: 1 }, { source: 0 }, { source: 2 }] } });
    expect(JSON.parse(readFileSync(join(out, "upcycle.json"), "utf8"))).toMatchObject({
      parent: { name: "base+poet" },
      parents: ["base+poet", "base+coder", "base"],
    });
    for (const [name, of] of [
      ["merged-coder", "llama"],
      ["merged-poet", "rslora"],
    ] as const)
      renameSync(await mergedOf(adapted(of)), join(folder, name));
    const merged = fresh();
    const same =
      "base_model: merged-poet\ngate_mode: random\nexperts: [{source_model: merged-coder}, {source_model: " +
      "merged-poet}, {source_model: base}]\n";
    await upcycleJson("convert", "--mergekit", file(same), "--out", merged, "--no-report");
    expect(weightHashes(out)).toEqual(weightHashes(merged));
    const { stdout } = await upcycle("convert", "--mergekit", file(text), "--dry-run");
    expect(stdout).toContain("adapter of parent 1: coder, LoRA of ranks 2 to 4");
    expect(stdout).toContain("copy of base+coder's up");
  });

  it.each([
    ["base+./missing", 'no such adapter: "./missing"'],
    ["base+coder+poet", "no such adapter: "],
    ["base+base", "folder has no adapter_config.json"],
    ["./missing+coder", "no such folder: ./missing+coder"],
  ])("refuses %s", async (name, words) => {
    const text = `base_model: base\ngate_mode: random\nexperts: [{source_model: ${name}}, {source_model: base}]\n`;
    expect(await refusalOf(["convert", "--mergekit", file(text), "--dry-run"])).toContain(words);
  });
});

describe("model+adapter", () => {
  const among =
    (...there: string[]) =>
    (name: string): Promise<string | null> =>
      Promise.resolve(there.includes(name) ? name : null);

  it("is a path that exists as it stands, else the one + between two that do", async () => {
    expect(await namedModel("a+b", among("a+b", "a", "b"))).toBe("a+b");
    expect(await namedModel("a+b", among("a", "b"))).toEqual({ model: "a", adapter: "b" });
    expect(await namedModel("c++/m+x", among("c++/m", "x"))).toEqual({ model: "c++/m", adapter: "x" });
    expect(await namedModel("m+c++/x", among("m", "c++/x"))).toEqual({ model: "m", adapter: "c++/x" });
    expect(await namedModel("a+b", among("b"))).toBeNull();
    await expect(namedModel("a+b", among("a"))).rejects.toThrow('no such adapter: "b"');
    await expect(namedModel("a+b+c", among("a", "b+c", "a+b", "c"))).rejects.toThrow("in 2 ways");
  });

  it("may be of the Hub, whose names hold no +", async () => {
    expect(await askedModel("hf://org/m@v1+org2/a@v2")).toEqual({ model: "hf://org/m@v1", adapter: "hf://org2/a@v2" });
    expect(await askedModel("hf://org/m+hf://org2/a")).toEqual({ model: "hf://org/m", adapter: "hf://org2/a" });
    expect(await askedModel(`hf://org/m+${adapterDir("llama")}`)).toEqual({
      model: "hf://org/m",
      adapter: adapterDir("llama"),
    });
    expect(await askedModel(`${baseDir("llama")}+hf://org2/a`)).toEqual({
      model: baseDir("llama"),
      adapter: "hf://org2/a",
    });
    await expect(askedModel(`${baseDir("llama")}+org2/a`)).rejects.toThrow('no such adapter: "org2/a"');
    expect(await askedModel("missing+too")).toBe("missing+too");
  });

  it("is what a mergekit file's keys say", () => {
    expect(modelWords({ model: { path: "a", revision: "x" }, lora: { path: "b", revision: "y" } })).toBe("a@x+b@y");
    expect(modelWords({ model: "a", lora: "b" })).toBe("a+b");
    expect(modelWords({ model: { path: "a" }, lora: null })).toBe("a");
  });
});
