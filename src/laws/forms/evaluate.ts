/**
 * One prediction at a time, for searches that ask thousands of times: a law with its parameters as a plain function of
 * the columns.
 */
import { at as elementAt } from "../../base/at.js";
import type { PowerSum } from "./power-sum.js";
import { placesOf, predict, type Law, type Params } from "./types.js";

/** Loss in nats per token; the columns are those it was made for, in that order. */
export type LossFunction = (a: number, b?: number, c?: number) => number;

/**
 * The law as a function of up to three columns, in the order of `names`, for any parameters. Sums of powers are
 * evaluated directly, all other laws through `predict`; a law over groups needs its `group`.
 */
export function lossFunctions(law: Law, names: readonly string[], group?: string): (params: Params) => LossFunction {
  const { terms, derived = {} } = law as Law & Partial<PowerSum>;
  if (terms === undefined) {
    const groups = group === undefined ? undefined : [group];
    return (params) =>
      (...values) =>
        elementAt(
          predict(
            law,
            params,
            placesOf(Object.fromEntries(names.map((name, i) => [name, [values[i] ?? NaN]])), groups),
          ),
          0,
        );
  }
  const used = terms.filter(({ groups }) => groups === undefined || groups.includes(group ?? ""));
  // Logs of the columns, then of derived quantities.
  const logged = [...names, ...Object.keys(derived)];
  const powers = used.flatMap(({ powers: all }) => all);
  const ends = Int32Array.from(
    used.reduce<number[]>((found, term) => [...found, (found.at(-1) ?? 0) + term.powers.length], []),
  );
  const first = Int32Array.from(powers, ({ logs }) => logged.indexOf(elementAt(logs, 0)));
  // -1: one log only.
  const second = Int32Array.from(powers, ({ logs }) => (logs.length < 2 ? -1 : logged.indexOf(elementAt(logs, 1))));
  const makers = Object.values(derived);
  const values = new Float64Array(names.length);
  const logs = new Float64Array(logged.length);
  const column = (name: string): number => values[names.indexOf(name)] ?? NaN;
  return (params) => {
    const coefficients = new Float64Array(used.length);
    const factors = new Float64Array(powers.length);
    used.forEach(({ coefficient }, t) => (coefficients[t] = params[coefficient] ?? NaN));
    powers.forEach(({ exponent, sign }, i) => (factors[i] = sign * (params[exponent] ?? NaN)));
    return (a, b = NaN, c = NaN) => {
      logs[0] = Math.log(a);
      if (names.length > 1) logs[1] = Math.log(b);
      if (names.length > 2) logs[2] = Math.log(c);
      if (makers.length > 0) {
        [values[0], values[1], values[2]] = [a, b, c];
        makers.forEach((make, i) => (logs[names.length + i] = Math.log(make(column))));
      }
      let loss = 0;
      let at = 0;
      for (let t = 0; t < coefficients.length; t++) {
        let exponent = 0;
        for (; at < ends[t]!; at++) {
          const product = factors[at]! * logs[first[at]!]!;
          exponent += second[at]! < 0 ? product : product * logs[second[at]!]!;
        }
        loss += coefficients[t]! * Math.exp(exponent);
      }
      return loss;
    };
  };
}
