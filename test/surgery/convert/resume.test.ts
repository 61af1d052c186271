/** Conversions that are stopped, killed, starved and disturbed. Threads and child processes run compiled code. */
import { spawn, spawnSync } from "node:child_process";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { UpcycleError } from "../../../src/base/errors.js";
import type { MakeEvent, PlannedModel } from "../../../src/surgery/convert/make.js";
import { resultOf } from "../../../src/base/events.js";
import { convertCheckpoint, type ConvertOptions } from "../../../src/surgery/convert/convert.js";
import { unfinishedName } from "../../../src/files/io/resumable-directory.js";
import { upcycleRecipe } from "../../../src/surgery/planning/recipe.js";
import { start } from "../../cli/upcycle.js";
import { runScript } from "../../support/built.js";
import { golden } from "../../support/golden.js";
import { hashes } from "./hashes.js";
import { conversionScript, expectKillsHarmless, pace, type ConversionRequest } from "./kills.js";

const root = realpathSync(mkdtempSync(join(tmpdir(), "upcycle-resume-")));
let folders = 0;
const fresh = (): string => join(root, `out${folders++}`);
afterAll(() => rmSync(root, { recursive: true, force: true }));

const conversion: ConversionRequest = {
  source: golden("dense/llama"),
  recipe: upcycleRecipe("E4G2T4", { seed: 3 }),
  maxShardBytes: 60_000,
  pace,
};
const options = (out: string, more: Partial<ConvertOptions> = {}): ConvertOptions => ({ ...conversion, out, ...more });

const reference = fresh();
const expected = async (): Promise<string[]> => {
  if (!existsSync(reference)) await resultOf(convertCheckpoint(options(reference)));
  return hashes(reference);
};

async function lineOf(promise: Promise<unknown>): Promise<string> {
  const error: unknown = await promise.then(
    () => "no error",
    (cause: unknown) => cause,
  );
  return error instanceof UpcycleError ? `${error.kind}: ${error.line.replaceAll(root, "ROOT")}` : String(error);
}

/** Stops after so many progress events. */
async function stopped(out: string, after: number, more: Partial<ConvertOptions> = {}): Promise<string> {
  const abort = new AbortController();
  let progressCount = 0;
  const events = convertCheckpoint(options(out, { ...more, signal: abort.signal }));
  return lineOf(
    resultOf(events, ({ type }) => void (type === "progress" && ++progressCount === after && abort.abort())),
  );
}

describe("threads", () => {
  it.each([1, 2, 4])("%i write the same bytes", async (threads) => {
    const out = fresh();
    await resultOf(convertCheckpoint(options(out, { threads })));
    expect(hashes(out)).toEqual(await expected());
  });

  it("chunks of any size, past the page cache or through it, are the same bytes", async () => {
    for (const other of [{ chunkBytes: 100 }, { chunkBytes: 1 << 20, direct: false }]) {
      const out = fresh();
      await resultOf(convertCheckpoint(options(out, { pace: other })));
      expect(hashes(out)).toEqual(await expected());
    }
  });

  it("report an error that is thrown in one of them", async () => {
    const out = fresh();
    const source = join(root, "halfway");
    cpSync(golden("dense/llama"), source, { recursive: true });
    // The threads open the source after it has been found good.
    const broken = resultOf(
      convertCheckpoint(options(out, { source, threads: 2 })),
      ({ type }) => void (type === "planned" && rmSync(join(source, "model.safetensors"))),
    );
    expect(await lineOf(broken)).toBe(
      "input: ROOT/halfway: weights are in expected.safetensors, a name that is not looked for; name the file " +
        "model.safetensors or pytorch_model.bin, or add the index of its shards",
    );
  });
});

describe("a conversion that is interrupted", () => {
  it("resumes to the same bytes, and leaves nothing beside the folder", async () => {
    const out = fresh();
    expect(await stopped(out, 90)).toMatch(
      /^interrupted: ROOT\/out\d+: stopped with \d+ % written; the same command goes on from there$/,
    );
    expect(existsSync(out)).toBe(false);
    expect(readdirSync(unfinishedName(out)).sort()).toEqual(["folder", "journal.jsonl"]);
    const events: MakeEvent<PlannedModel>[] = [];
    await resultOf(convertCheckpoint(options(out)), (event) => events.push(event));
    const [, resumed, first] = events;
    expect(resumed).toMatchObject({ type: "resumed" });
    const there = (resumed as { done: number }).done;
    expect(there).toBeGreaterThan(50_000);
    expect((first as { done: number }).done).toBeGreaterThan(there);
    expect(hashes(out)).toEqual(await expected());
    expect(existsSync(unfinishedName(out))).toBe(false);
  });

  it("between its last two steps is found finished", async () => {
    const out = fresh();
    await stopped(out, 90);
    const room = unfinishedName(out);
    cpSync(room, join(root, "room"), { recursive: true });
    await resultOf(convertCheckpoint(options(out)));
    // As if killed after the rename, before the journal was removed.
    mkdirSync(room);
    cpSync(join(root, "room", "journal.jsonl"), join(room, "journal.jsonl"));
    writeFileSync(join(room, "journal.jsonl"), '{"committing":true}\n', { flag: "a" });
    await resultOf(convertCheckpoint(options(out)));
    expect(hashes(out)).toEqual(await expected());
    expect(existsSync(room)).toBe(false);
    // And a finished folder is refused as ever.
    expect(await lineOf(resultOf(convertCheckpoint(options(out))))).toContain("folder exists and is not empty");
  });

  it("starts over if it is asked for with other settings, and says so", async () => {
    const out = fresh();
    await stopped(out, 90);
    const events: MakeEvent<PlannedModel>[] = [];
    await resultOf(convertCheckpoint(options(out, { recipe: upcycleRecipe("E4G2T4", { seed: 4 }) })), (event) =>
      events.push(event),
    );
    expect(events[1]).toEqual({ type: "replaced", name: "E4G2T4 of llama as F32" });
    await resultOf(convertCheckpoint(options(out, { overwrite: true })));
    expect(hashes(out)).toEqual(await expected());
  });

  it("starts over if the journal or the files were damaged", async () => {
    for (const damage of [
      (room: string) => writeFileSync(join(room, "journal.jsonl"), '{"begun":\nnonsense\n'),
      (room: string) => writeFileSync(join(room, "folder", "model-00001-of-00005.safetensors"), ""),
      (room: string) => rmSync(join(room, "folder"), { recursive: true }),
    ]) {
      const out = fresh();
      await stopped(out, 90);
      damage(unfinishedName(out));
      await resultOf(convertCheckpoint(options(out)));
      expect(hashes(out)).toEqual(await expected());
    }
  });

  it("keeps the old folder until the new one is complete", async () => {
    const out = fresh();
    mkdirSync(out);
    writeFileSync(join(out, "config.json"), '{"model_type":"old"}');
    await stopped(out, 90, { overwrite: true });
    expect(readFileSync(join(out, "config.json"), "utf8")).toBe('{"model_type":"old"}');
    expect(await lineOf(resultOf(convertCheckpoint(options(out))))).toContain("folder exists and is not empty");
    await resultOf(convertCheckpoint(options(out, { overwrite: true })));
    expect(hashes(out)).toEqual(await expected());
  });

  it("by Ctrl-C exits with 130 and says how to resume", async () => {
    const out = fresh();
    const script = runScript(
      conversionScript(conversion, "fs.writeSync(1, 'x\\n'); if (++count === 5) process.kill(process.pid, 'SIGINT');"),
      [out],
    );
    const { code, stdout } = await script.ended;
    expect(code).toBe(130);
    expect(stdout).toMatch(/interrupted: .*stopped with \d+ % written; the same command goes on from there/);
  });
});

describe("a source that changes", () => {
  const copy = (): string => {
    const source = fresh();
    cpSync(golden("dense/llama"), source, { recursive: true });
    return source;
  };

  it("between two attempts ends in an error that says what to do", async () => {
    const [out, source] = [fresh(), copy()];
    await stopped(out, 90, { source });
    const file = join(source, "model.safetensors");
    utimesSync(file, 1e9, 1e9);
    expect(
      (await lineOf(resultOf(convertCheckpoint(options(out, { source })))))
        .replaceAll(/\b[0-9a-f]{12}\b/g, "HASH")
        .replace(/of 20[^,]*,/, "of THEN,"),
    ).toMatch(
      /^input: ROOT\/out\d+\/model.safetensors: the source changed since this conversion began: the file was \d+ bytes of THEN, header HASH and is \d+ bytes of 2001-09-09T01:46:40.000Z, header HASH; put it back to go on, or remove ROOT\/\.out\d+\.unfinished to start over with the source as it is$/,
    );
    rmSync(unfinishedName(out), { recursive: true });
    await resultOf(convertCheckpoint(options(out, { source })));
    // The record and the card name the source's folder.
    const weights = (lines: readonly string[]): string[] => lines.filter((line) => line.startsWith("model"));
    expect(weights(hashes(out))).toEqual(weights(await expected()));
  });

  it("while it is read ends in an error, and nothing that was read from it is written", async () => {
    const [out, source] = [fresh(), copy()];
    let progressCount = 0;
    const onEvent = ({ type }: MakeEvent<PlannedModel>): void =>
      void (type === "progress" && ++progressCount === 20 && utimesSync(join(source, "model.safetensors"), 1e9, 1e9));
    expect(await lineOf(resultOf(convertCheckpoint(options(out, { source })), onEvent))).toContain(
      "the source changed while it was read",
    );
    expect([existsSync(out), existsSync(unfinishedName(out))]).toEqual([false, false]);
  });
});

it("a conversion that is killed at random moments ends with the same bytes", async () => {
  await expectKillsHarmless(conversion, { kills: 12, expected: await expected(), fresh });
}, 120_000);

it("upcycle convert resumes after a kill", async () => {
  const [plain, out] = [fresh(), fresh()];
  // The report comes after the conversion: a kill in between leaves a complete model without it.
  const args = ["convert", golden("dense/llama"), "--recipe", "E8G1T2", "--no-report", "--out"];
  expect((await start([...args, plain]).outcome).code).toBe(0);
  for (const wait of [150, 250, 300]) {
    const { process: child, outcome } = start([...args, out]);
    setTimeout(() => child.kill("SIGKILL"), wait);
    await outcome;
    if (existsSync(out)) expect(hashes(out)).toEqual(hashes(plain));
  }
  if (!existsSync(out)) expect((await start([...args, out, "--threads", "2"]).outcome).code).toBe(0);
  expect(hashes(out)).toEqual(hashes(plain));
});

const canMount = spawnSync("unshare", ["-rm", "sh", "-c", "mount -t tmpfs tmpfs /tmp"]).status === 0;

describe.skipIf(!canMount)("a disk that fills up", () => {
  it("stops the conversion with one line, and the same conversion resumes when there is room again", async () => {
    const disk = fresh();
    mkdirSync(disk);
    const out = fresh();
    // The room asked for is there at the beginning; after 40 chunks something else takes it.
    const fill = conversionScript(
      conversion,
      `
      if (++count === 40) {
        const disk = process.argv[2].replace(/[^/]*$/, "");
        const { bavail, bsize } = fs.statfsSync(disk);
        fs.writeFileSync(disk + "filler", new Uint8Array(bavail * bsize));
      }`,
    );
    const { status, stdout, stderr } = spawnSync(
      "unshare",
      [
        "-rm",
        "sh",
        "-c",
        `
      mount -t tmpfs -o size=500k tmpfs ${disk}
      "$NODE" --input-type=module -e "$FILL" script ${disk}/model; echo "exit $?"
      ls -A ${disk}
      "$NODE" --input-type=module -e "$PLAIN" script ${disk}/model; echo "exit $?"
      rm ${disk}/filler
      "$NODE" --input-type=module -e "$PLAIN" script ${disk}/model; echo "exit $?"
      cp -r ${disk}/model ${out}`,
      ],
      {
        env: { ...process.env, NODE: process.execPath, FILL: fill, PLAIN: conversionScript(conversion) },
        encoding: "utf8",
      },
    );
    expect(stderr).toBe("");
    expect(status).toBe(0);
    expect(stdout.replaceAll(disk, "DISK")).toMatch(
      new RegExp(
        "^failed stopped: DISK/model/model-0000\\d-of-0000\\d.safetensors: cannot write weights: the disk is " +
          "full; free some space [^\\n]*\\nexit 1\\n" +
          ("\\.model\\.unfinished\\nfiller\\nfailed stopped: DISK/model: not enough disk space[^\\n]*\\nexit " +
            "1\\nexit 0\\n$"),
      ),
    );
    expect(hashes(out)).toEqual(await expected());
  });
});

it("upcycle convert exits with 2 for a folder that may not be written to", async ({ skip }) => {
  const parent = fresh();
  mkdirSync(parent);
  chmodSync(parent, 0o555);
  chmodSync(root, 0o755);
  // Root may write anywhere, so another user tries.
  const user = process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : {};
  const main = new URL("../../../bin/upcycle.js", import.meta.url).pathname;
  const readable = spawnSync(process.execPath, [main, "--version"], user).status === 0;
  if (!readable) skip("no other user may read the built program");
  const child = spawn(
    process.execPath,
    [main, "convert", golden("dense/llama"), "--recipe", "E8G1T2", "--out", join(parent, "m")],
    { ...user, stdio: ["ignore", "pipe", "pipe"] },
  );
  let stderr = "";
  child.stderr.on("data", (data: Buffer) => (stderr += data.toString()));
  const code = await new Promise((resolve) => child.on("close", resolve));
  expect(stderr.replaceAll(root, "ROOT")).toMatch(
    /^upcycle: ROOT\/out\d+\/m: cannot create folder: permission denied; give your user access to it, or use another path\n$/,
  );
  expect(code).toBe(2);
  expect(readdirSync(parent)).toEqual([]);
});

it("an old folder that a killed replacement has moved aside gets its name back", async () => {
  const out = fresh();
  await stopped(out, 90);
  mkdirSync(out);
  writeFileSync(join(out, "config.json"), "old");
  renameSync(out, join(root, `.${out.slice(root.length + 1)}.previous`));
  expect(await lineOf(resultOf(convertCheckpoint(options(out))))).toContain("folder exists and is not empty");
  expect(readFileSync(join(out, "config.json"), "utf8")).toBe("old");
});
