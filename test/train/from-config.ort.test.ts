/** A train file whose model cannot be trained so: refused before its text is read. */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { parseTrainConfig } from "../../src/base/schemas/index.js";
import { resultOf } from "../../src/base/events.js";
import { trainFromConfig, type TrainFileEvent } from "../../src/train/from-config.js";
import { temporaryFolder } from "../files/io/temporary.js";
import { inThread } from "../support/backend.js";

const root = temporaryFolder();
const tiny = fileURLToPath(new URL("../../models/tiny", import.meta.url));

const file = (training: string): string => `
model: ${JSON.stringify(tiny)}
text: {builtin: [moby-dick]}
out: ${JSON.stringify(join(root, "run"))}
training: {steps: 2, batch: 1, lr: {peak: 1e-3}, ${training}}
`;

describe("a training of a model folder", () => {
  it.each([
    ["a sequence longer than the model's positions", "sequence: 100000", "is longer than the model's"],
    ["routing settings that a dense model cannot have", "sequence: 16, routing: {bias: 1e-3}", "it has no routers"],
  ])("is refused for %s before text is read", async (_, training, words) => {
    const events: TrainFileEvent[] = [];
    const running = trainFromConfig({
      config: parseTrainConfig(file(training), "train.yaml"),
      dir: join(root, "run"),
      backend: inThread,
      threads: 1,
    });
    await expect(resultOf(running, (event) => events.push(event))).rejects.toThrow(words);
    expect(events).toEqual([{ type: "phase", label: "opening the model" }]);
  });
});
