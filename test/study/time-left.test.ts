import { describe, expect, it } from "vitest";
import { TimeLeft, guessedSeconds } from "../../src/study/time-left.js";

describe("the time that a study still takes", () => {
  it("is unknown before a step, when the guess by threads stands", () => {
    expect(new TimeLeft().seconds(1e12, 5000)).toBeNull();
    expect(guessedSeconds(1e12, 2)).toBe(20);
    expect(guessedSeconds(1e12, 4)).toBe(10);
  });

  it("does not take the compiling before the first step for the pace of all", () => {
    const left = new TimeLeft();
    left.add(1e9, 100);
    // A study of 1000 such steps: 99.9 s of steps are left, though the first came after 5 s of compiling.
    const seconds = left.seconds(999e9, 5000)!;
    expect(seconds).toBeGreaterThan(99.9);
    expect(seconds).toBeLessThan(120);
  });

  it("counts what lies between the steps once there were many", () => {
    const left = new TimeLeft();
    for (let step = 0; step < 5000; step++) left.add(1e9, 100);
    // 500 s of steps took 600 s.
    expect(left.seconds(5000e9, 600_000)! / 600).toBeCloseTo(1, 1);
  });

  it("never undercuts the steps themselves where the clock began late", () => {
    const left = new TimeLeft();
    left.add(1e9, 1000);
    expect(left.seconds(10e9, 0)).toBeCloseTo(10, 9);
  });
});
