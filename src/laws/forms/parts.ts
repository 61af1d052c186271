/** Columns, parameters and terms that several laws have in common. */
import type { Power, PowerSum, PowerTerm } from "./power-sum.js";
import type { Column, Parameter } from "./types.js";

/** Size of the model. */
export const columnN: Column = {
  name: "N",
  meaning: "parameters of the model (say which: total, active, without embeddings)",
  unit: "parameters",
};
/** Tokens of its training. */
export const columnD: Column = { name: "D", meaning: "training tokens seen", unit: "tokens" };

/** A factor of a term, which is positive. */
export const coefficient = (name: string, meaning: string, unit: string): Parameter => ({
  name,
  meaning,
  unit,
  role: "coefficient",
});

/** An exponent; its unit is 1 unless it multiplies a logarithm. */
export const exponent = (name: string, meaning: string, unit = "1"): Parameter => ({
  name,
  meaning,
  unit,
  role: "exponent",
});

/** The irreducible loss under the name that a law gives it. */
export const irreducible = (name = "E"): Parameter => ({
  name,
  meaning: "irreducible loss, left when size and data grow without limit",
  unit: "nats/token",
  role: "constant",
});

/** The coefficient of a term that falls with size, and its exponent. */
export const ofSize = (factor: string, power: string): readonly [Parameter, Parameter] => [
  coefficient(factor, "size coefficient", `nats/token * parameters^${power}`),
  exponent(power, "exponent of model size"),
];

/** The coefficient of a term that falls with training tokens, and its exponent. */
export const ofData = (factor: string, power: string): readonly [Parameter, Parameter] => [
  coefficient(factor, "data coefficient", `nats/token * tokens^${power}`),
  exponent(power, "exponent of training tokens"),
];

/** x^-p. */
export const fall = (power: string, name: string): Power => ({ exponent: power, sign: -1, logs: [name] });

/** A coefficient times powers. */
export const term = (factor: string, ...powers: readonly Power[]): PowerTerm => ({ coefficient: factor, powers });

/**
 * x^(p ln y): the exponent of one falls or grows with the logarithm of the other. Its own exponent may have either
 * sign, and is small where those of x and y are.
 */
export const interaction = (power: string, one: string, other: string): Power => ({
  exponent: power,
  sign: 1,
  logs: [one, other],
});

/** Where an interaction's exponent lies and is looked for. */
export const ofInteraction = (power: string): Required<Pick<PowerSum, "bounds" | "scan">> => ({
  bounds: { [power]: [-0.5, 0.5] },
  scan: { [power]: [-0.01, 0, 0.01] },
});
