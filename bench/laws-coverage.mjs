/**
 * Measures the coverage of the intervals that a fit states, that is how often they contain the truth:
 *
 *   node bench/laws-coverage.mjs [--studies 200] [--level 0.9] [--noise 0.005] [--loss mse|huber|lad] [--bootstrap 0]
 *     [--out FILE]
 *
 * The script simulates studies of the upcycling law (published coefficients, a 4 x 4 x 4 grid of N, D1, D2) and fits
 * each. It counts how often profile-likelihood intervals contain the true parameters, and the true loss of a larger
 * model and more tokens than any study had; with --bootstrap it counts the same for percentile intervals. A study takes
 * about 30 ms, and several seconds more with a bootstrap.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { bootstrapDraws, naturalDraws, summarise } from "../dist/laws/fitting/bootstrap.js";
import { lawById } from "../dist/laws/fitting/catalogue.js";
import { fitLaw, problemOf } from "../dist/laws/fitting/fit.js";
import { profileParameter, profilePrediction } from "../dist/laws/fitting/profile.js";
import { publishedById } from "../dist/laws/forms/published.js";
import { placesOf, predict } from "../dist/laws/forms/types.js";
import { gridOf, simulated, spaced } from "./laws-data.mjs";

const { values: flags } = parseArgs({
  options: {
    studies: { type: "string", default: "200" },
    level: { type: "string", default: "0.9" },
    noise: { type: "string", default: "0.005" },
    loss: { type: "string", default: "mse" },
    bootstrap: { type: "string", default: "0" },
    out: { type: "string" },
  },
});
const [studies, level, noise, draws] = [flags.studies, flags.level, flags.noise, flags.bootstrap].map(Number);
const loss = { name: flags.loss, delta: flags.loss === "huber" ? 1e-3 : 0 };
const law = lawById("upcycling");
const truth = publishedById("liew-upcycled").params;
const grid = gridOf({ N: spaced(0.11e9, 1.1e9, 4), D1: spaced(2e9, 74e9, 4), D2: spaced(0.9e9, 37e9, 4) });
const place = placesOf({ N: [7e9], D1: [3e11], D2: [1e11] });
const wanted = { ...truth, prediction: predict(law, truth, place)[0] };
const names = Object.keys(wanted);
const tally = () => Object.fromEntries(names.map((name) => [name, { inside: 0, open: 0, widths: [] }]));
const [profile, bootstrap] = [tally(), tally()];
const statuses = {};

const count = (into, { low, high, lowOpen = false, highOpen = false }, value) => {
  into.inside += (lowOpen || value >= low) && (highOpen || value <= high) ? 1 : 0;
  into.open += lowOpen || highOpen ? 1 : 0;
  into.widths.push(high - low);
};

const began = performance.now();
for (let study = 0; study < studies; study++) {
  const points = simulated(law, truth, grid, noise, study);
  const fit = fitLaw(law, points, { loss });
  const problem = problemOf(fit.bound, points, loss);
  statuses[fit.status] = (statuses[fit.status] ?? 0) + 1;
  law.parameters.forEach(({ name }, j) =>
    count(profile[name], profileParameter(fit, problem, j, { level }), truth[name]),
  );
  count(profile.prediction, profilePrediction(fit, problem, place, { level }), wanted.prediction);
  if (draws === 0) continue;
  const drawn = bootstrapDraws(problem, fit.theta, undefined, { seed: study, from: 0, to: draws });
  naturalDraws(fit.bound, drawn).forEach((values, j) => {
    const { name } = law.parameters[j];
    count(bootstrap[name], summarise(values, level), truth[name]);
  });
  const evaluator = fit.bound.at(place);
  const out = new Float64Array(1);
  const losses = Float64Array.from({ length: draws }, (_, i) => {
    evaluator.evaluate(drawn.subarray(i * fit.bound.p, (i + 1) * fit.bound.p), out);
    return Math.exp(out[0]);
  });
  count(bootstrap.prediction, summarise(losses, level), wanted.prediction);
}
const seconds = (performance.now() - began) / 1000;

const share = (value) => `${((100 * value) / studies).toFixed(1)} %`;
const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
const tight = new Set(["alpha1", "alpha2", "alpha3", "prediction"]);
console.log(
  `${studies} studies, noise ${noise}, ${loss.name}, nominal ${100 * level} %, ${seconds.toFixed(1)} s; fits: ` +
    `${JSON.stringify(statuses)}`,
);
for (const name of names) {
  const { inside, open, widths } = profile[name];
  const part = inside / studies;
  const met = part >= 0.85 && (!tight.has(name) || part <= 0.95 + 1e-9);
  const beside = draws === 0 ? "" : `   bootstrap ${share(bootstrap[name].inside)}`;
  console.log(
    `${name.padEnd(11)} ${share(part * studies).padStart(7)}  ${met ? "met   " : "MISSED"} open ` +
      `${share(open).padStart(7)}  median width ${median(widths).toPrecision(3)}${beside}`,
  );
}
if (flags.out !== undefined) {
  const summary = (all) =>
    Object.fromEntries(
      names.map((name) => [
        name,
        {
          coverage: all[name].inside / studies,
          open: all[name].open / studies,
          medianWidth: median(all[name].widths) ?? null,
        },
      ]),
    );
  const out = fileURLToPath(new URL(flags.out, `file://${process.cwd()}/`));
  mkdirSync(dirname(out), { recursive: true });
  writeFileSync(
    out,
    `${JSON.stringify(
      {
        ...{ studies, level, noise, loss, draws, seconds, statuses, truth: wanted, profile: summary(profile) },
        bootstrap: draws === 0 ? null : summary(bootstrap),
      },
      null,
      1,
    )}\n`,
  );
}
