/** How many commands and texts run at once, however many are asked for in one moment. */
import { PassThrough } from "node:stream";
import type { ServerResponse } from "node:http";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { Actions } from "../../../src/studio/server/actions.js";
import { Generator } from "../../../src/studio/server/generator.js";
import { Studio } from "../../../src/studio/server/studio.js";
import { temporaryFolder } from "../../files/io/temporary.js";
import { writeModels } from "../folder.js";

const root = temporaryFolder();
/** A command that goes on until it is asked to end. */
const program = ["/bin/sh", "-c", "exec sleep 60", "sh"] as const;
const reasons = (results: readonly PromiseSettledResult<unknown>[]): string[] =>
  results.flatMap((one) => (one.status === "rejected" ? [(one.reason as Error).message] : []));

describe("commands that are asked for at once", () => {
  const begun = (): Actions =>
    new Actions({ root, folder: root, noted: () => Promise.resolve(null), onChange: () => undefined, program });
  const asked = (i: number) => ({ command: "train" as const, file: "t.yaml", out: join(root, `run-${i}`) });

  it("are as many as may run, and the others are refused", async () => {
    const actions = begun();
    const results = await Promise.allSettled(Array.from({ length: 20 }, (_, i) => actions.start(asked(i))));
    expect(reasons(results)).toEqual(Array(4).fill("16 commands run already"));
    await actions.close();
    expect(actions.list.every(({ state }) => state === "ended")).toBe(true);
  });

  it("are none where the studio ends before they have begun", async () => {
    const actions = begun();
    const started = Promise.allSettled([actions.start(asked(0))]);
    await actions.close();
    expect(reasons(await started)).toEqual(["the studio is ending"]);
    expect(actions.list).toEqual([]);
  });
});

describe("texts that are asked for at once", () => {
  let studio: Studio;
  beforeAll(async () => {
    writeModels(root);
    studio = await Studio.open({ dir: root, actions: true });
    await studio.look();
  });
  const asked = { model: "models/moe", prompt: "a", seed: 0, temperature: 1, maxTokens: 1 };
  const answer = (): ServerResponse & { readonly heads: number[] } => {
    const heads: number[] = [];
    const stream = new PassThrough().resume();
    return Object.assign(stream, { heads, writeHead: (status: number) => heads.push(status) }) as never;
  };

  it("are as many as may be made, and the others are refused", async () => {
    const texts = new Generator(studio, { folder: root, program });
    const responses = Array.from({ length: 7 }, answer);
    const written = responses.map((response) => texts.write(asked, response));
    const refused = await Promise.race([
      Promise.allSettled(written.slice(4)),
      new Promise<never>((_, failed) => setTimeout(() => failed(new Error("more texts are made")), 5000)),
    ]);
    expect(reasons(refused)).toEqual(Array(3).fill("4 texts are being made already"));
    for (const response of responses) response.destroy();
    expect(reasons(await Promise.allSettled(written.slice(0, 4)))).toEqual([]);
  });

  it("are none for a page that has gone away before they have begun", async () => {
    const texts = new Generator(studio, { folder: root, program });
    const gone = answer();
    const written = texts.write(asked, gone);
    gone.destroy();
    await written;
    expect(gone.heads).toEqual([]);
  });
});
