import type { RunRow } from "../../../src/studio/data/types.js";

/** A row of the list; what is left out is that of a finished dense run. */
export const row = (change: Partial<RunRow>): RunRow => ({
  name: "run",
  state: "finished",
  kind: "dense",
  study: null,
  arm: "run",
  seed: 0,
  params: 100,
  activeParams: 100,
  step: 10,
  steps: 10,
  tokens: 1000,
  loss: 3,
  bestLoss: 3,
  trainLoss: 3,
  tokensPerSecond: 10,
  secondsLeft: null,
  dead: null,
  experts: null,
  bytes: 0,
  changed: 0,
  alerts: 0,
  revision: 1,
  problem: null,
  ...change,
});
