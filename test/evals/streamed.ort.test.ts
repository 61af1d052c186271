/** Weights that pass by give the logits of weights that stay. */
import { describe, expect, it } from "vitest";
import { at, entryOf } from "../../src/base/at.js";
import { UpcycleError } from "../../src/base/errors.js";
import { openModel } from "../../src/evals/model.js";
import { openStreamedModel } from "../../src/evals/streamed-model.js";
import { inThread } from "../support/backend.js";
import { golden, goldenModels, readTensors } from "../support/golden.js";

describe.each(goldenModels)("%s", (name) => {
  it("streamed in small pieces computes transformers' logits, and those of the whole model", async () => {
    const expected = readTensors(golden(name, "expected.safetensors"));
    const { data, shape } = entryOf(expected, "input_ids");
    const [batch, sequence] = shape as [number, number];
    const ids = Int32Array.from(data);
    // Fewer elements than any matrix has: every one is read in several pieces.
    const streamed = await openStreamedModel(golden(name), inThread, { threads: 1, weightElements: 300 });
    const whole = await openModel(golden(name), inThread, 1);
    const [logits, other] = [
      await streamed.logits(ids, { batch, sequence }),
      await whole.logits(ids, { batch, sequence }),
    ];
    const expectedLogits = entryOf(expected, "logits").data;
    const scale = Math.max(...expectedLogits.map(Math.abs));
    expect(logits.length).toBe(expectedLogits.length);
    expect(Math.max(...logits.map((value, i) => Math.abs(value - at(expectedLogits, i))))).toBeLessThanOrEqual(1e-4);
    expect(Math.max(...logits.map((value, i) => Math.abs(value - at(other, i)))) / scale).toBeLessThanOrEqual(1e-5);

    const rows = Int32Array.of(3, batch * sequence - 1);
    const picked = await streamed.logits(ids, { batch, sequence }, rows);
    const vocab = streamed.spec.vocab;
    rows.forEach((row, i) =>
      expect(
        Math.max(
          ...picked
            .subarray(i * vocab, (i + 1) * vocab)
            .map((value, j) => Math.abs(value - at(logits, row * vocab + j))),
        ),
      ).toBeLessThanOrEqual(1e-5 * scale),
    );
    await streamed.close();
    await whole.close();
  });
});

describe("a streamed model", () => {
  it("refuses ids that it does not have, and stops where it is asked to", async () => {
    const controller = new AbortController();
    const model = await openStreamedModel(golden("dense/llama"), inThread, { threads: 1, signal: controller.signal });
    const outside: unknown = await model
      .logits(Int32Array.of(1, 96), { batch: 1, sequence: 2 })
      .catch((cause: unknown) => cause);
    expect(outside).toBeInstanceOf(UpcycleError);
    expect((outside as UpcycleError).line).toContain("token id 96 is outside the vocabulary 0..95");
    controller.abort(new Error("enough"));
    await expect(model.logits(Int32Array.of(1, 2), { batch: 1, sequence: 2 })).rejects.toThrow("enough");
    await model.close();
  });
});
