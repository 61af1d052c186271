/**
 * Writes the spread of a pilot into a study file: the standard deviation of the paired differences of each question,
 * by which a dry run tells what the study can detect. node scripts/spread.mjs PILOT FILE
 *
 * PILOT is the folder of a finished study with the same questions, of another size or with other seeds.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseDocument } from "yaml";
import { answersOf } from "../dist/report/study/answers.js";

const [pilot, file] = process.argv.slice(2);
const result = JSON.parse(readFileSync(join(pilot, "result.json"), "utf8"));
const { config } = JSON.parse(readFileSync(join(pilot, "study.json"), "utf8"));
const before = readFileSync(file, "utf8").replace(/^ +spread: .*\n/gm, "");
const study = parseDocument(before);

const lines = answersOf(result.questions).map(({ question, test }, index) => {
  const asked = study.getIn(["questions", index]);
  const isSame = ["compare", "with"].every((key) => asked?.get(key) === question[key]);
  if (!isSame) throw new Error(`${file}: question ${index} is not the pilot's "${question.ask}"`);
  // The line behind the one that names the second arm.
  const place = before.indexOf("\n", asked.get("with", true).range[1]) + 1;
  const of = `of ${test.n} pairs at scale ${config.scale}, ${result.startedAt.slice(0, 10)}`;
  const isKnown = test.n >= 3 && test.deviation > 0;
  return { place, text: isKnown ? `    spread: ${Number(test.deviation.toPrecision(2))} # ${of}\n` : "" };
});
const after = lines.reduceRight(
  (text, { place, text: line }) => text.slice(0, place) + line + text.slice(place),
  before,
);
writeFileSync(file, after);
