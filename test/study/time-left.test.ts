import { describe, expect, it } from "vitest";
import { TimeLeft, guessedSeconds } from "../../src/study/time-left.js";

describe("the time that a study still takes", () => {
  it("is the guess by threads before a step", () => {
    expect(guessedSeconds(1e12, 2)).toBe(20);
    expect(new TimeLeft(2).seconds(1e12, 0)).toBeCloseTo(20, 9);
    expect(new TimeLeft(4).seconds(1e12, 0)).toBeCloseTo(10, 9);
  });

  it("takes neither a slow first step nor the compiling before it for the pace of all", () => {
    const left = new TimeLeft(2);
    // A thousand steps of 1 GFLOP, guessed at 20 ms each; the first took 400 ms, and began after 5 s of compiling.
    left.add(1e9, 400);
    expect(left.seconds(999e9, 5400)).toBeGreaterThan(20);
    expect(left.seconds(999e9, 5400)).toBeLessThan(30);
  });

  it("is what the steps say once there were many, with what lies between them", () => {
    const left = new TimeLeft(2);
    for (let step = 0; step < 5000; step++) left.add(1e9, 100);
    // 500 s of steps took 600 s, five times as long as was guessed.
    expect(left.seconds(5000e9, 600_000) / 600).toBeCloseTo(1, 1);
  });

  it("never undercuts the steps themselves where the clock began late", () => {
    const left = new TimeLeft(1);
    for (let step = 0; step < 1000; step++) left.add(1e9, 1000);
    expect(left.seconds(100e9, 0)).toBeGreaterThan(95);
  });
});
