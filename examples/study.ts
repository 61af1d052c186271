/**
 * What does further training buy? A study of a dense model on text of your own, run and judged as a program:
 *
 *     node study.js DENSE RUN_FOLDER TEXT
 *
 * Stopped and started again it goes on where it was. The same as a YAML file is `upcycle study`.
 */
import { stringify } from "yaml";
import { onnxruntimeBackend, parseStudyConfig, resultOf, runStudy, type ArmResult, type StudyEvent } from "upcycle";

/** Three arms that train on the same few tokens: long enough to show how, far too short to show who wins. */
function studyOf(dense: string, text: string): string {
  return stringify({
    name: "example",
    seeds: [0, 1],
    parent: dense,
    text: { files: [text], heldOut: 0.1 },
    continue: { steps: 6, batch: 2, sequence: 32, lr: { peak: 1e-3 }, evalEvery: 3 },
    evaluation: { tokens: 512 },
    arms: {
      dense: { kind: "dense" },
      upcycled: { kind: "upcycled", recipe: "E4G1T2" },
      scratch: { kind: "scratch", like: "upcycled" },
    },
  });
}

function show(event: StudyEvent): void {
  if (event.type === "phase") console.log(event.label);
  else if (event.type === "train" && event.event.type === "eval")
    console.log(`${event.run}: step ${event.event.step}, held-out loss ${event.event.loss.toFixed(3)}`);
}

const meanLoss = ({ runs }: ArmResult): number => runs.reduce((sum, run) => sum + run.finalLoss, 0) / runs.length;

const [dense, dir, text] = process.argv.slice(2);
if (dense === undefined || dir === undefined || text === undefined)
  throw new Error("DENSE, RUN_FOLDER and TEXT are needed");

const config = parseStudyConfig(studyOf(dense, text), "example");
const study = runStudy({ config, dir, backends: [onnxruntimeBackend], threads: 2, command: "node study.js" });
const { parents, arms, findings } = await resultOf(study, show);

for (const { id, loss } of parents) console.log(`${id} ${loss.toFixed(3)}`);
for (const arm of arms) console.log(`${arm.label} ${meanLoss(arm).toFixed(3)}`);
console.log(findings[0]);
