/**
 * Runs in processes of their own, killed with no chance to clean up, and disks that fill up. As built: `npm run build`
 * comes first.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { randomStream } from "../../src/base/random.js";
import { temporaryFolder } from "../files/io/temporary.js";
import { built, runScript } from "../support/built.js";
import { block, finish, moeSpec, remains, runOptions } from "../support/runs.js";

const root = temporaryFolder();
const options = runOptions("", { block: { ...block, saveEvery: 1, evalEvery: 2 } });

/**
 * The run of `options` in the folder that the first argument names; prints each event, and after "step N" of `onStep`
 * runs it.
 */
function script(onEvent = ""): string {
  const data = JSON.stringify({
    spec: moeSpec,
    block: options.block,
    evaluationTokens: options.evaluationTokens,
    seed: options.seed,
    threads: 1,
    identity: options.identity,
    text: { train: Array.from(options.text.train), heldOut: Array.from(options.text.heldOut) },
  });
  return `
    import * as fs from "node:fs";
    import { trainRun } from "${built("train/run.js")}";
    import { freshTensor } from "${built("train/init.js")}";
    import { openTrainRuntime } from "${built("engine/onnxruntime/train-runtime.js")}";
    const data = ${data};
    const dir = process.argv[2];
    const events = trainRun({
      ...data, dir, carry: undefined, backend: { openTrain: openTrainRuntime },
      text: { train: Int32Array.from(data.text.train), heldOut: Int32Array.from(data.text.heldOut) },
      initial: (slot) => Promise.resolve(freshTensor(data.spec, slot, 1)),
    });
    try {
      for await (const event of events) {
        fs.writeSync(1, event.type + " " + (event.step ?? "") + "\\n");
        ${onEvent}
      }
    } catch (error) {
      fs.writeSync(1, "failed " + error.kind + ": " + (error.line ?? error.stack) + "\\n");
      process.exit(error.exitCode ?? 70);
    }`;
}

it("killed again and again, anywhere, the same command goes on to the same end", async () => {
  const [reference, dir] = [join(root, "reference"), join(root, "killed")];
  await finish({ ...options, dir: reference });
  const random = randomStream(Date.now(), "kill");
  const log: string[] = [];
  let kills = 0;
  for (let attempt = 0; ; attempt++) {
    const { process: child, ended } = runScript(script(), [dir]);
    if (kills < 7) {
      // After a few events and a few milliseconds: in the middle of a step, a save, a rename.
      let left = 1 + Math.floor(random.uniformAt(2 * attempt) * 7);
      const delay = random.uniformAt(2 * attempt + 1) * 20;
      child.stdout!.on("data", (chunk: Buffer) => {
        left -= chunk.toString().split("\n").length - 1;
        if (left <= 0) setTimeout(() => child.kill("SIGKILL"), delay);
      });
    }
    const { code, signal, stdout, stderr } = await ended;
    log.push(`${signal ?? code} after ${stdout.trim().split("\n").join(", ")}`);
    expect(stderr, log.join("\n")).toBe("");
    if (signal === "SIGKILL") {
      kills++;
      continue;
    }
    expect(code, log.join("\n")).toBe(0);
    break;
  }
  expect(kills, log.join("\n")).toBeGreaterThan(0);
  expect(await remains(dir), log.join("\n")).toEqual(await remains(reference));
}, 60_000);

const canMount = spawnSync("unshare", ["-rm", "sh", "-c", "mount -t tmpfs tmpfs /tmp"]).status === 0;

describe.skipIf(!canMount)("a disk that fills up", () => {
  it("stops the run with one line; the last checkpoint stays, and the run resumes once there is room", async () => {
    const reference = join(root, "roomy");
    await finish({ ...options, dir: reference });
    // The disk exists only in the name space of the processes below, so what is left is copied out at the end.
    const [disk, out] = [join(root, "disk"), join(root, "out")];
    mkdirSync(disk);
    // After step 5 the rest of the disk is filled, all but a little for the log.
    const fill = script(`
      if (event.type === "step" && event.step === 5) {
        const { bavail, bsize } = fs.statfsSync(dir);
        fs.writeFileSync(dir + "/../filler", new Uint8Array((bavail - 4) * bsize));
      }`);
    const { status, stdout, stderr } = spawnSync(
      "unshare",
      [
        "-rm",
        "sh",
        "-c",
        `
      mount -t tmpfs -o size=2m tmpfs ${disk}
      "$NODE" --input-type=module -e "$FILL" script ${disk}/run; echo "exit $?"
      ls -A ${disk}/run; cat ${disk}/run/last/training.json
      rm ${disk}/filler
      "$NODE" --input-type=module -e "$PLAIN" script ${disk}/run > /dev/null; echo "exit $?"
      cp -r ${disk}/run ${out}`,
      ],
      { env: { ...process.env, NODE: process.execPath, FILL: fill, PLAIN: script() }, encoding: "utf8" },
    );
    expect(stderr).toBe("");
    expect(status).toBe(0);
    const lines = [
      "step 5",
      "failed stopped: [^\\n]*(disk is full|not enough disk space)[^\\n]*",
      "exit 1",
      "best",
      "last",
      "metrics.jsonl",
      "run.json",
      '\\{"step":4,.*\\}',
      "exit 0",
    ];
    expect(stdout).toMatch(new RegExp(`${lines.join("\\n")}\\n$`));
    expect(await remains(out)).toEqual(await remains(reference));
  }, 60_000);
});
