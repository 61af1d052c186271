/** One prediction at a time, for searches that ask thousands of times: a law with its parameters as a plain function of the columns. */
import type { PowerSum } from "./power-sum.js";
import { naturalOf, placesOf, predict, type Law, type Params } from "./types.js";

export type Columns = Readonly<Record<string, number>>;

/** Loss in nats per token at a place. Sums of powers are evaluated directly, all other laws through `predict`; a law over groups needs its `group`. */
export function lossFunction(law: Law, params: Params, group?: string): (at: Columns) => number {
  const { terms, derived = {} } = law as Law & Partial<PowerSum>;
  if (terms === undefined) return (at) => predict(law, params, placesOf(Object.fromEntries(Object.entries(at).map(([name, value]) => [name, [value]])), group === undefined ? undefined : [group]))[0]!;
  const values = new Map([...naturalOf(law, params)].map((value, j) => [law.parameters[j]!.name, value]));
  const parts = terms
    .filter(({ groups }) => groups === undefined || groups.includes(group ?? ""))
    .map(({ coefficient, powers }) => ({
      coefficient: values.get(coefficient)!,
      powers: powers.map(({ exponent, sign, logs }) => ({ factor: sign * values.get(exponent)!, logs })),
    }));
  return (at) => {
    const column = (name: string): number => at[name] ?? NaN;
    let loss = 0;
    for (const { coefficient, powers } of parts) {
      let exponent = 0;
      for (const { factor, logs } of powers) {
        let product = factor;
        for (const name of logs) product *= Math.log(derived[name] === undefined ? column(name) : derived[name](column));
        exponent += product;
      }
      loss += coefficient * Math.exp(exponent);
    }
    return loss;
  };
}
