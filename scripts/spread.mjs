/**
 * Writes the spread of a pilot into a study file: the standard deviation of the paired differences of each question,
 * by which a dry run tells what the study can detect. node scripts/spread.mjs PILOT FILE
 *
 * PILOT is the folder of a finished study with the same questions, smaller or with fewer seeds.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseDocument } from "yaml";
import { answersOf } from "../dist/report/study/answers.js";

const [pilot, file] = process.argv.slice(2);
const result = JSON.parse(readFileSync(join(pilot, "result.json"), "utf8"));
const { config } = JSON.parse(readFileSync(join(pilot, "study.json"), "utf8"));
const study = parseDocument(readFileSync(file, "utf8"));
const answers = answersOf(result.questions);
for (const [index, { question, test }] of answers.entries()) {
  const asked = study.getIn(["questions", index]);
  const isSame = ["compare", "with"].every((key) => asked?.get(key) === question[key]);
  if (!isSame) throw new Error(`${file}: question ${index} is not the pilot's "${question.ask}"`);
  if (!(test.n >= 2 && test.deviation > 0)) continue;
  asked.set("spread", Number(test.deviation.toPrecision(2)));
  asked.get("spread", true).comment =
    ` of ${test.n} pairs of a pilot at scale ${config.scale}, ${result.startedAt.slice(0, 10)}`;
}
writeFileSync(file, study.toString({ lineWidth: 120, flowCollectionPadding: true }));
