/**
 * The points that the benchmarks of scaling laws fit: those of the shared data set if it is present, else points that
 * are simulated to look like it.
 */
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { randomStream } from "../dist/base/random.js";
import { lawById } from "../dist/laws/fitting/catalogue.js";
import { publishedById } from "../dist/laws/forms/published.js";
import { placesOf, predict } from "../dist/laws/forms/types.js";

const epoch = fileURLToPath(
  new URL("../../shared/data/scaling-laws/epoch-chinchilla/svg_extracted_data.csv", import.meta.url),
);

/**
 * 240 points of Hoffmann et al. read off their figure (Besiroglu et al. 2024): D = C / 6N, the five largest losses left
 * out.
 */
export function chinchillaPoints() {
  if (!existsSync(epoch)) return { data: "simulated, 240 points", points: simulatedChinchilla() };
  const [head, ...lines] = readFileSync(epoch, "utf8")
    .trim()
    .split("\n")
    .map((line) => line.split(","));
  const column = (name) => lines.map((cells) => Number(cells[head.indexOf(name)]));
  const [N, C, loss] = [column("Model Size"), column("Training FLOP"), column("loss")];
  const fifth = [...loss].sort((a, b) => b - a)[4];
  const kept = loss.map((_, i) => i).filter((i) => loss[i] < fifth);
  const points = {
    ...placesOf({ N: kept.map((i) => N[i]), D: kept.map((i) => C[i] / (6 * N[i])) }),
    loss: Float64Array.from(kept, (i) => loss[i]),
  };
  return { data: "epoch-chinchilla, 240 points", points };
}

function simulatedChinchilla() {
  const places = gridOf({ N: spaced(6e7, 1.6e10, 15), D: spaced(2e8, 3e11, 16) });
  return simulated(lawById("chinchilla"), publishedById("besiroglu").params, places, 0.0075, 0);
}

export const spaced = (low, high, steps) =>
  Array.from({ length: steps }, (_, i) => low * (high / low) ** (i / (steps - 1)));

export function gridOf(values) {
  const names = Object.keys(values);
  const rows = names.reduce(
    (found, name) => found.flatMap((row) => values[name].map((value) => [...row, value])),
    [[]],
  );
  return placesOf(Object.fromEntries(names.map((name, j) => [name, rows.map((row) => row[j])])));
}

export function simulated(law, params, places, noise, seed) {
  const deviates = new Float64Array(places.n);
  randomStream(seed, "noise").normals(deviates, 0, 0, noise);
  return { ...places, loss: predict(law, params, places).map((value, i) => value * Math.exp(deviates[i])) };
}
