import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { generationChanges } from "../../../src/evals/scoring/generation-config.js";
import { warningsOf } from "../../../src/evals/tasks/checks.js";
import { temporaryFolder } from "../../files/io/temporary.js";

function folderWith(text: string): string {
  const folder = temporaryFolder();
  writeFileSync(join(folder, "generation_config.json"), text);
  return folder;
}

describe("settings of generation_config.json", () => {
  it("are named where transformers would write another text than the likeliest one", async () => {
    const qwen = {
      ...{ bos_token_id: 151643, pad_token_id: 151643, do_sample: true, eos_token_id: [151645, 151643] },
      ...{ repetition_penalty: 1.05, temperature: 0.7, top_p: 0.8, top_k: 20 },
    };
    expect(await generationChanges(folderWith(JSON.stringify(qwen)))).toEqual(["repetition_penalty 1.05"]);
    const whisper = { suppress_tokens: [1, 2], begin_suppress_tokens: [], num_beams: 4, no_repeat_ngram_size: 0 };
    expect(await generationChanges(folderWith(JSON.stringify(whisper)))).toEqual([
      "num_beams 4",
      "suppress_tokens [1,2]",
    ]);
  });

  it("are none where they only sample, where the file is missing, and where it cannot be read", async () => {
    const sampling = { do_sample: true, temperature: 0.6, top_p: 0.9, repetition_penalty: 1, max_length: 4096 };
    expect(await generationChanges(folderWith(JSON.stringify(sampling)))).toEqual([]);
    expect(await generationChanges(temporaryFolder())).toEqual([]);
    expect(await generationChanges(folderWith("no JSON"))).toEqual([]);
  });

  it("are said of tasks whose answers are texts, and of no others", () => {
    const said = (outputType: string): readonly string[] =>
      warningsOf({ config: { outputType } } as never, {} as never, [], ["repetition_penalty 1.05"]);
    expect(said("generate_until")).toEqual([
      "the texts are the likeliest ones, without repetition_penalty 1.05 of the model's generation_config.json, with " +
        "which transformers would write others",
    ]);
    expect(said("loglikelihood")).toEqual([]);
  });
});
