/** Splits by activation, from the text to the model. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { resultOf } from "../../../src/base/events.js";
import { openStreamedModel } from "../../../src/evals/streamed-model.js";
import { openCheckpoint } from "../../../src/files/checkpoint/open.js";
import { activationSplit, type MeasuredSplit } from "../../../src/surgery/calibration/activation-split.js";
import { upcycling } from "../../../src/surgery/convert/convert.js";
import { mergeCheckpoint } from "../../../src/surgery/convert/merge.js";
import { readRecord, recipeOf } from "../../../src/surgery/convert/record.js";
import { makeByWorkflow } from "../../../src/surgery/convert/workflow.js";
import { measurePreservation } from "../../../src/evals/preservation.js";
import { upcycleRecipe, type RecipeOptions, type UpcycleRecipe } from "../../../src/surgery/planning/recipe.js";
import { temporaryFolder } from "../../files/io/temporary.js";
import { inThread } from "../../support/backend.js";
import { golden } from "../../support/golden.js";
import { lineOf } from "../../support/line.js";
import { perturbed } from "../../support/perturbed.js";
import { withWordTokenizer } from "../../support/word-tokenizer.js";

const root = temporaryFolder();
const source = withWordTokenizer(perturbed("dense/llama", join(root, "base"), 0));
const text = join(root, "text.txt");
const kinds = ["the code of a loop", "verse and rhyme of the verse", "a loop a loop code"];
writeFileSync(text, Array.from({ length: 60 }, (_, i) => kinds[(i * i) % 3]).join(" "));
const recipe = (name: string, options: RecipeOptions = {}): UpcycleRecipe =>
  upcycleRecipe(name, { split: { text: null }, ...options });
const split = (of: UpcycleRecipe, tokens?: number, from = source): Promise<MeasuredSplit> =>
  activationSplit({ source: from, recipe: of, text: [text], tokens, sequence: 16, backend: inThread, threads: 1 });
const errorOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => "no error",
    (cause: unknown) =>
      lineOf(() => {
        throw cause;
      }).replaceAll(root, "ROOT"),
  );

describe("activationSplit", () => {
  it("finds, for one sequence, the units that act(gate x) up x makes largest", async () => {
    const { orders, rows } = await split(recipe("E1G8T2", { shared: 16 }), 16);
    const model = await openStreamedModel(source, inThread, { threads: 1 });
    const checkpoint = await openCheckpoint(source);
    const { tokens } = await split(recipe("E1G8T2", { shared: 16 }), 16);
    expect(tokens).toBe(16);
    const words = readFileSync(text, "utf8").split(" ").slice(0, 16);
    const vocabulary = (
      JSON.parse(readFileSync(join(source, "tokenizer.json"), "utf8")) as {
        readonly model: { readonly vocab: Record<string, number> };
      }
    ).model.vocab;
    const ids = Int32Array.from(words, (word) => vocabulary[word]!);
    const shape = { batch: 1, sequence: 16 };
    const inputs = await model.ffnInput(0, await model.attention(0, await model.embed(ids, shape), shape));
    const [gate, up] = [await checkpoint.readFloat32("layers.0.gate"), await checkpoint.readFloat32("layers.0.up")];
    const units = up.length / 32;
    const dot = (matrix: Float32Array, unit: number, token: number): number => {
      let sum = 0;
      for (let i = 0; i < 32; i++) sum += matrix[unit * 32 + i]! * inputs[token * 32 + i]!;
      return sum;
    };
    const counts = new Array<number>(units).fill(0);
    for (let token = 0; token < 16; token++) {
      const sizes = Array.from({ length: units }, (_, unit) => {
        const g = dot(gate, unit, token);
        return Math.abs((g / (1 + Math.exp(-g))) * dot(up, unit, token));
      });
      const order = [...sizes.keys()].sort((a, b) => sizes[b]! - sizes[a]!);
      for (const unit of order.slice(0, 10)) counts[unit]! += 1;
    }
    const busiest = [...counts.keys()].sort((a, b) => counts[b]! - counts[a]! || a - b).slice(0, 16);
    expect([...orders[0]!.subarray(0, 16)]).toEqual(busiest.sort((a, b) => a - b));
    // Router rows have the directions of gate's rows, and one length.
    const lengths = Array.from({ length: 8 }, (_, part) => Math.hypot(...rows[0]!.subarray(part * 32, part * 32 + 32)));
    for (const length of lengths) expect(length / lengths[0]!).toBeCloseTo(1, 5);
    const cosines = Array.from({ length: units }, (_, unit) => {
      const row = gate.subarray(unit * 32, unit * 32 + 32);
      return row.reduce((sum, x, i) => sum + x * rows[0]![i]!, 0) / (Math.hypot(...row) * lengths[0]!);
    });
    const representative = cosines.indexOf(Math.max(...cosines));
    expect(cosines[representative]).toBeCloseTo(1, 5);
    const size = (units - 16) / 8;
    expect([...orders[0]!.subarray(16, 16 + size)]).toContain(representative);
    await model.close();
    await checkpoint.close();
  });

  it("depends on nothing but model and text, and refuses what cannot be split", async () => {
    const of = recipe("E1G8T2", { shared: 16 });
    expect(await split(of)).toEqual(await split(of));
    expect(await errorOf(split(of, 4))).toContain("4 tokens do not tell 8 parts apart");
    expect(await errorOf(split(upcycleRecipe("E1G8T2")))).toContain("the recipe does not split by activation");
    expect(await errorOf(split(of, 16, golden("dense/llama")))).toContain("has no tokenizer.json");
  });
});

describe("a conversion that splits by activation", () => {
  it("writes all of the FFN once, measures what is kept, which is more than without, and can be taken back", async () => {
    const tools = { backend: inThread, threads: { prompts: 1, calibration: 1, writing: 1, proof: 1 }, text: [text] };
    const make = async (name: string, of: UpcycleRecipe): Promise<string> => {
      const out = join(root, name);
      await resultOf(makeByWorkflow(upcycling({ source, recipe: of }), { ...tools, out, report: true }));
      return out;
    };
    const options = { shared: 16, target: "qwen2_moe" } as const;
    const out = await make("split", recipe("E1G8T4", options));
    const record = (await readRecord(out))!;
    expect(recipeOf(record).split).toMatchObject({ text: { source: "text.txt" } });
    expect(record.expected.kind).toBe("approximate");
    expect(readFileSync(join(out, "README.md"), "utf8")).toContain("the 16 most active are the shared expert");
    const errorOfFfns = async (child: string): Promise<number> => {
      const compared = { parent: source, child, text: [text], sequence: 16, backend: inThread, threads: 1, memory: 0 };
      const { layers } = await measurePreservation(compared);
      return layers!.reduce((sum, { relative }) => sum + relative, 0) / layers!.length;
    };
    const plain = await make("plain", upcycleRecipe("E1G8T4", options));
    expect(await errorOfFfns(out)).toBeLessThan(await errorOfFfns(plain));
    // All units are there: the way back gives the parent's function.
    const merged = join(root, "merged");
    await resultOf(mergeCheckpoint({ source: out, choice: { kind: "mean", weights: null }, out: merged }));
    expect(await errorOfFfns(merged)).toBeLessThan(1e-5);
  });
});
