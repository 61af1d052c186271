/** Points the tests fit: the shared data sets where they are present, and synthetic ones. */
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { randomStream } from "../../src/base/random.js";
import { lawById } from "../../src/laws/fitting/catalogue.js";
import { bestOf, problemOf, type Fit } from "../../src/laws/fitting/fit.js";
import { lossFunctions, type LossFunction } from "../../src/laws/forms/evaluate.js";
import { publishedById } from "../../src/laws/forms/published.js";
import {
  naturalOf,
  placesOf,
  predict,
  type Law,
  type Params,
  type Places,
  type Points,
} from "../../src/laws/forms/types.js";
import { fitFrom } from "../../src/laws/solvers/local-fit.js";
import type { Loss } from "../../src/laws/solvers/loss.js";
import { at, valueAt } from "../../src/base/at.js";
import { present } from "../support/present.js";

const folder = fileURLToPath(new URL("../../../shared/data/scaling-laws/", import.meta.url));

export const haveData = existsSync(folder);
export const dataFile = (...names: readonly string[]): string => folder + names.join("/");

export const law = (id: string): Law => present(lawById(id));

/** Published parameters by their id. */
export const publishedParams = (id: string): Params => present(publishedById(id)).params;

/** The law with these parameters as a function of the named columns, in their order. */
export function lossFunction(of: Law, params: Params, names: readonly string[], group?: string): LossFunction {
  return lossFunctions(of, names, group)(params);
}

export const spaced = (low: number, high: number, steps: number): number[] =>
  Array.from({ length: steps }, (_, i) => low * (high / low) ** (i / (steps - 1)));

/** All combinations of values, by column. */
export function gridOf(values: Readonly<Record<string, readonly number[]>>): Places {
  const names = Object.keys(values);
  const rows = names.reduce<number[][]>(
    (combinations, name) => combinations.flatMap((row) => valueAt(values, name).map((value) => [...row, value])),
    [[]],
  );
  return placesOf(Object.fromEntries(names.map((name, j) => [name, rows.map((row) => at(row, j))])));
}

/** What the law predicts at the places, with normal noise of standard deviation `noise` on ln L. */
export function simulated(from: Law, params: Params, places: Places, noise = 0, seed = 0): Points {
  const deviates = new Float64Array(places.n);
  randomStream(seed, "noise").normals(deviates, 0, 0, noise);
  return { ...places, loss: predict(from, params, places).map((value, i) => value * Math.exp(at(deviates, i))) };
}

/**
 * The fit from one start, where it is known that all starts would lead to the same optimum: an eighth of the time of
 * `fitLaw`, for tests that fit many tables.
 */
export function fitNear(of: Law, points: Points, near: Params, loss: Loss): Fit {
  const bound = of.bind(points);
  const problem = problemOf(bound, points, loss);
  return bestOf(problem, points, [fitFrom(problem, bound.internal(naturalOf(of, near)), null)]);
}

/** The reference's grid for the upcycling law: N 0.11-1.1B, D1 2-74B, D2 0.9-37B. */
export const upcyclingGrid = gridOf({
  N: spaced(0.11e9, 1.1e9, 4),
  D1: spaced(2e9, 74e9, 4),
  D2: spaced(0.9e9, 37e9, 4),
});

/** Parameters of upcycling-shared as in Table 2 of Liew et al. */
export const table2 = Object.fromEntries([
  ...(["dense", "moe", "upcycled"] as const).flatMap((group) =>
    Object.entries(publishedParams(`liew-${group}`))
      .filter(([name]) => name !== "E")
      .map(([name, value]) => [`${group}.${name}`, value]),
  ),
  ["E", 0.165],
]) as Record<string, number>;

/** Dense, MoE and upcycled models with one E, with noise on ln L. */
export function together(noise: number, seed = 0): Points {
  const scratch = gridOf({ N: spaced(1e8, 1e9, 4), D: spaced(1e9, 1e11, 5) });
  const parts: [string, Places][] = [
    ["dense", scratch],
    ["moe", scratch],
    ["upcycled", upcyclingGrid],
  ];
  const column = (name: string): number[] =>
    parts.flatMap(([, { columns, n }]) => [...(columns[name] ?? new Float64Array(n).fill(NaN))]);
  const group = parts.flatMap(([name, { n }]) => new Array<string>(n).fill(name));
  return {
    ...simulated(
      law("upcycling-shared"),
      table2,
      placesOf({ N: column("N"), D: column("D"), D1: column("D1"), D2: column("D2") }, group),
      noise,
      seed,
    ),
    group,
  };
}

/** 240 points of Hoffmann et al. as read off their figure: D = C / 6N, the five largest losses left out. */
export function chinchillaPoints(): Points {
  const rows = csv(readFileSync(dataFile("epoch-chinchilla", "svg_extracted_data.csv"), "utf8")).map((row) => {
    const N = Number(row["Model Size"]);
    return { N, D: Number(row["Training FLOP"]) / (6 * N), loss: Number(row.loss) };
  });
  const fifth = at(
    rows.map(({ loss }) => loss).sort((a, b) => b - a),
    4,
  );
  return pointsOf(
    rows.filter(({ loss }) => loss < fifth),
    ["N", "D"],
  );
}

export function gemstones(name: string): Points {
  const rows = readFileSync(dataFile("gemstones", `${name}.jsonl`), "utf8")
    .trim()
    .split("\n")
    .map((line) => {
      const row = JSON.parse(line) as Record<string, number>;
      return { N: valueAt(row, "params_active_precise"), D: valueAt(row, "tokens"), loss: valueAt(row, "final_loss") };
    });
  return pointsOf(rows, ["N", "D"]);
}

/** Last step of the runs with one router (or none), routing frequency 0.5, k = 1, seed 42. */
export function routed(router: string): Points {
  const last = new Map<string, Record<string, string>>();
  for (const row of csv(gunzipSync(readFileSync(dataFile("clark-routed", "curves.csv.gz"))).toString())) {
    const id = valueAt(row, "hyper_id");
    if (Number(row.step) >= Number(last.get(id)?.step ?? -1)) last.set(id, row);
  }
  const rows = [...last.values()].filter(
    (row) =>
      Number(row.routing_frequency) === 0.5 &&
      row.k === "1" &&
      row.seed === "42" &&
      (row.router_type === router || row.router_type === "Dense"),
  );
  return pointsOf(
    rows.map((row) => ({
      N: Number(row.dense_parameter_count),
      E: Number(row.num_experts),
      loss: Number(row.loss_validation),
    })),
    ["N", "E"],
  );
}

function csv(text: string): Record<string, string>[] {
  const [head, ...lines] = text
    .trim()
    .split("\n")
    .map((line) => line.split(","));
  return lines.map((cells) => Object.fromEntries(cells.map((cell, j) => [at(present(head), j), cell])));
}

function pointsOf<K extends string>(
  rows: readonly (Record<K, number> & { loss: number })[],
  names: readonly K[],
): Points {
  return {
    ...placesOf(Object.fromEntries(names.map((name) => [name, rows.map((row) => row[name])]))),
    loss: Float64Array.from(rows, ({ loss }) => loss),
  };
}
