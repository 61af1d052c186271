/** Models that were upcycled: how they were made, tensor by tensor, and what was measured of them. */
import { fileURLToPath } from "node:url";
import { join } from "node:path";
import { UpcycleError } from "../../base/errors.js";
import { specFromConfig } from "../../model/decoder/config.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import { readRecord, recipeOf, recordFile, type UpcycleRecord } from "../../surgery/convert/record.js";
import { explainTitle } from "../../surgery/planning/explain.js";
import { printExpr } from "../../surgery/planning/expr.js";
import { planUpcycle } from "../../surgery/planning/plan.js";
import { recipeFlags } from "../../surgery/planning/recipe-flags.js";
import type { ModelDetail, ModelRow, PreservationRow } from "../data/model-types.js";
import { preservationOf, preservationRow } from "./detail.js";
import type { StudioIndex } from "./index.js";
import { parentFolder, shownParent, specIn } from "./parents.js";
import { readPlain, readPlainJson } from "./safe-file.js";

/** The small model that comes with the package, which `upcycle demo` upcycles. */
const shippedModel = { name: "tiny", path: fileURLToPath(new URL("../../../models/tiny", import.meta.url)) };

/** Most characters of an expression that are shown: one that carries an order is long. */
const longestExpression = 240;

/** The record of a model; null where the file is a link, damaged or of a later version. */
export async function recordIn(index: StudioIndex, name: string): Promise<UpcycleRecord | null> {
  const path = index.pathOf(name);
  if ((await readPlain(join(path, recordFile), 256e6)) === null) return null;
  return readRecord(path).catch(() => null);
}

/** All models that were upcycled, in the order of their names. */
export async function modelRows(index: StudioIndex): Promise<ModelRow[]> {
  const rows: ModelRow[] = [];
  for (const name of index.found.models) {
    const record = await recordIn(index, name);
    if (record !== null) rows.push(await rowOf(index, name, record));
  }
  return rows;
}

async function rowOf(index: StudioIndex, name: string, record: UpcycleRecord): Promise<ModelRow> {
  return {
    name,
    recipe: record.name,
    parent: await shownParent(index, name, record),
    expected: record.expected.kind,
    preservation: await measuredOf(index, name),
  };
}

/** What was measured of a model: in its folder, or beside it where a study keeps the models that arms start from. */
async function measuredOf(index: StudioIndex, name: string): Promise<PreservationRow | null> {
  const own = await preservationOf(index, name);
  if (own !== null) return own;
  const beside = index.found.documents.find(
    (file) => file.startsWith(`${name}.`) && /^[0-9a-f]+\.json$/.test(file.slice(name.length + 1)),
  );
  return beside === undefined ? null : preservationRow(await readPlainJson(index.pathOf(beside), 16e6));
}

/**
 * The measurement of the model that a run of a study started from, which lies among the study's `starts`; null where
 * there is none. `recipe` and the study are those of the run.
 */
export async function startMeasured(
  index: StudioIndex,
  study: string,
  recipe: unknown,
): Promise<PreservationRow | null> {
  const prefix = study === "" ? "starts/" : `${study}/starts/`;
  for (const name of index.found.models.filter((one) => one.startsWith(prefix))) {
    const record = await recordIn(index, name);
    if (record !== null && isRecipe(record.recipe, recipe)) return measuredOf(index, name);
  }
  return null;
}

/** What a conversion measures or decides, so that a record has more of it than a run's recipe. */
const filledIn: ReadonlySet<string> = new Set(["target", "calibration", "split", "routerInit"]);
const kindOf = (value: unknown): unknown => (value as { readonly kind?: unknown } | null)?.kind;

/** Whether a record's recipe is that of a run. */
function isRecipe(made: UpcycleRecord["recipe"], asked: unknown): boolean {
  if (typeof asked !== "object" || asked === null) return false;
  const settings = asked as Readonly<Record<string, unknown>>;
  return Object.entries(made).every(([key, value]) => {
    const wanted = settings[key];
    if (filledIn.has(key)) return kindOf(wanted) === kindOf(value);
    return wanted === undefined || JSON.stringify(wanted) === JSON.stringify(value);
  });
}

/** One model with its plan. Returns null for a folder without a record. */
export async function modelDetail(index: StudioIndex, name: string): Promise<ModelDetail | null> {
  if (!index.found.models.includes(name)) return null;
  const record = await recordIn(index, name);
  if (record === null) return null;
  const path = index.pathOf(name);
  // The record has the last part of the parent's path alone.
  const parentPath = await parentFolder(index, name, record);
  const source = parentPath === null ? record.parent.name : index.pathOf(parentPath);
  const base = {
    ...(await rowOf(index, name, record)),
    path,
    why: record.expected.why,
    warnings: record.warnings,
    command:
      record.recipe.routerInit === null
        ? ["upcycle", "convert", source, ...recipeFlags(recipeOf(record)), "--out", path]
        : null,
  };
  const parent = await parentSpec(index, parentPath, record);
  if (parent === null) {
    const noPlan = `the parent ${record.parent.name} is not below the folder that is shown, or is one of several`;
    return { ...base, title: record.name, tensors: [], noPlan };
  }
  try {
    const plan = planUpcycle(parent, recipeOf(record));
    const tensors = plan.outputs.map(({ slot, value }) => ({
      name: slot.key,
      shape: slot.shape.join(" × "),
      made: shortened(printExpr(value)),
    }));
    return { ...base, title: explainTitle(plan), tensors, noPlan: null };
  } catch (cause) {
    if (!(cause instanceof UpcycleError)) throw cause;
    return { ...base, title: record.name, tensors: [], noPlan: cause.message };
  }
}

const shortened = (text: string): string =>
  text.length <= longestExpression ? text : `${text.slice(0, longestExpression - 1)}…`;

/** The description of the dense model that a record names, where it can be found. */
async function parentSpec(
  index: StudioIndex,
  folder: string | null,
  record: UpcycleRecord,
): Promise<DecoderSpec | null> {
  if (folder !== null) return specIn(index, folder);
  if (record.parent.name !== shippedModel.name) return null;
  const config = await readPlainJson(join(shippedModel.path, "config.json"), 16e6);
  return config === null ? null : specFromConfig(config, shippedModel.path);
}
