/** Folders as people have them: what transformers computes from each is what is computed here. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { entryOf } from "../../src/base/at.js";
import { openModel } from "../../src/evals/model.js";
import { openCheckpoint, type ModelSource } from "../../src/files/checkpoint/open.js";
import { inThread } from "../support/backend.js";
import { golden, readTensors } from "../support/golden.js";

/** Folders with a model and what transformers computed, below `found/`. */
function foldersOf(place: string): string[] {
  const entries = readdirSync(golden(place), { withFileTypes: true });
  if (entries.some(({ name }) => name === "expected.safetensors")) return [place];
  return entries.filter((entry) => entry.isDirectory()).flatMap(({ name }) => foldersOf(join(place, name)));
}

/** What is opened for a folder: an adapter of `found/adapter` stands behind its model. */
function sourceOf(place: string): ModelSource {
  if (!place.startsWith("found/adapter/")) return golden(place);
  const tied = /tied$/.test(place);
  return { model: golden(tied ? "found/adapter_base_tied" : "found/adapter_base"), adapter: golden(place) };
}

async function notesOf(place: string): Promise<{ notes: readonly string[]; unused: readonly string[] }> {
  const { notes, unused, close } = await openCheckpoint(sourceOf(place));
  await close();
  return { notes, unused };
}

describe("a folder as people have it", () => {
  it.each(foldersOf("found"))("%s: transformers' logits", async (place) => {
    const expected = readTensors(golden(place, "expected.safetensors"));
    const { shape, data } = entryOf(expected, "input_ids");
    const model = await openModel(sourceOf(place), inThread, 1);
    const logits = await model.logits(Int32Array.from(data), { batch: shape[0]!, sequence: shape[1]! });
    await model.close();
    const wanted = Float32Array.from(entryOf(expected, "logits").data);
    expect(logits.length).toBe(wanted.length);
    let worst = 0;
    wanted.forEach((value, i) => (worst = Math.max(worst, Math.abs(value - logits[i]!))));
    const largest = wanted.reduce((most: number, value) => Math.max(most, Math.abs(value)), 0);
    expect(worst / largest).toBeLessThan(2e-5);
  });

  it("says which head is used where the config ties it and the files hold both, or the head alone", async () => {
    expect((await notesOf("found/tied_equal")).notes).toEqual([]);
    expect((await notesOf("found/tied_differing")).notes).toMatchInlineSnapshot(`
      [
        "config.json ties lm_head.weight to model.embed_tokens.weight, but their values differ: the head is kept as a matrix of its own, as transformers 5 does (older versions drop it)",
      ]
    `);
    expect((await notesOf("found/tied_head_only")).notes).toMatchInlineSnapshot(`
      [
        "model.embed_tokens.weight is not stored: lm_head.weight is embedding and head, which config.json ties",
      ]
    `);
  });

  it("reads packed experts and foreign prefixes without leaving a tensor", async () => {
    for (const place of [...foldersOf("found/packed"), ...foldersOf("found/prefix")])
      expect(await notesOf(place), place).toEqual({ notes: [], unused: [] });
  });

  it("says what of a multimodal model was left", async () => {
    expect(await notesOf("found/multimodal/gemma3")).toMatchInlineSnapshot(`
      {
        "notes": [
          "of this gemma3 model the text part is read, as gemma3_text; 34 tensors of its other parts (multi_modal_projector, vision_tower) are left out",
        ],
        "unused": [],
      }
    `);
    expect(await notesOf("found/multimodal/qwen2_vl_flat")).toMatchInlineSnapshot(`
      {
        "notes": [
          "of this qwen2_vl model the text part is read, as qwen2; 19 tensors of its other parts (visual) are left out",
        ],
        "unused": [],
      }
    `);
  });

  it("says what an adapter brings in place of the model's own tensors", async () => {
    expect((await notesOf("found/adapter/embedding")).notes).toEqual([]);
    expect((await notesOf("found/adapter/head")).notes).toEqual([]);
    expect((await notesOf("found/adapter/modules_to_save")).notes).toEqual([]);
    expect((await notesOf("found/adapter/embedding_differing")).notes).toMatchInlineSnapshot(`
      [
        "the adapter brings a model.embed_tokens.weight that differs from the model's, and it is used in its place",
      ]
    `);
    expect((await notesOf("found/adapter/resized")).notes).toMatchInlineSnapshot(`
      [
        "the adapter resizes the vocabulary from 48 to 52 words",
      ]
    `);
    expect((await notesOf("found/adapter/resized_tied")).notes).toMatchInlineSnapshot(`
      [
        "the adapter resizes the vocabulary from 48 to 52 words",
      ]
    `);
    expect((await notesOf("found/adapter/head_untied")).notes).toMatchInlineSnapshot(`
      [
        "the adapter gives embedding and head values of their own, which the model ties: they are untied",
      ]
    `);
  });
});
