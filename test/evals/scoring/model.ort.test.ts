import { describe, expect, it } from "vitest";
import { fileURLToPath } from "node:url";
import { openModel } from "../../../src/evals/model.js";
import { localModel, type AnsweringModel } from "../../../src/evals/scoring/model.js";
import type { Sample } from "../../../src/evals/tasks/prompt.js";
import { openTokenizer } from "../../../src/text/tokenizer/load.js";
import { decoderOf } from "../../../src/cli/decoder-of.js";
import { inThread } from "../../support/backend.js";

const tiny = fileURLToPath(new URL("../../../models/tiny", import.meta.url));
const samples: readonly Sample[] = ["Call me", "The white"].map((context, id) => ({
  id,
  doc: {},
  target: "",
  requests: [" whale", " Ishmael"].map((continuation) => ({ kind: "loglikelihood", context, continuation })),
}));

async function answersOf(model: AnsweringModel): Promise<unknown[]> {
  const answers: unknown[] = [];
  for await (const batch of (await model.prepare(samples, "task")).answers(() => false)) answers.push(...batch);
  return answers;
}

describe("a model that is still being opened", () => {
  it("has its prompts prepared before its weights are there, and answers as one that is open", async () => {
    const open = await localModel(await openModel(tiny, inThread, 1), await openTokenizer(tiny));
    const expected = await answersOf(open);
    await open.close();
    let begin = (): void => undefined;
    const begun = new Promise<void>((resolve) => (begin = resolve));
    const opened = begun.then(() => openModel(tiny, inThread, 1));
    const model = await localModel({ dir: tiny, spec: await decoderOf(tiny), opened }, await openTokenizer(tiny));
    expect((await model.prepare(samples, "task")).tokens).toHaveLength(2);
    begin();
    expect(await answersOf(model)).toEqual(expected);
    await model.close();
  });

  it("says why it cannot be opened when it is asked, and closes all the same", async () => {
    const [spec, tokenizer] = [await decoderOf(tiny), await openTokenizer(tiny)];
    const opened = Promise.reject(new Error("no such weights"));
    const model = await localModel({ dir: tiny, spec, opened }, tokenizer);
    await expect(answersOf(model)).rejects.toThrow("no such weights");
    await model.close();
  });
});
