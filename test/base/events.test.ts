import { describe, expect, it } from "vitest";
import { eventsOf, resultOf } from "../../src/base/events.js";

const pause = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 1));

describe("resultOf", () => {
  async function* counting(log: string[]): AsyncGenerator<number, string> {
    try {
      yield 1;
      await pause();
      yield 2;
      return "done";
    } finally {
      log.push("tidied up");
    }
  }

  it("gives the result of a generator and tells its events", async () => {
    const log: string[] = [];
    expect(await resultOf(counting(log), (event) => log.push(String(event)))).toBe("done");
    expect(log).toEqual(["1", "2", "tidied up"]);
  });

  it("lets a generator tidy up where the listener throws", async () => {
    const log: string[] = [];
    const failing = (): never => {
      throw new Error("heard enough");
    };
    await expect(resultOf(counting(log), failing)).rejects.toThrow("heard enough");
    expect(log).toEqual(["tidied up"]);
  });
});

describe("eventsOf", () => {
  it("yields what is told in one go and later, and returns the result", async () => {
    const heard: number[] = [];
    const work = eventsOf<number, string>(async (tell) => {
      tell(1);
      tell(2);
      await pause();
      tell(3);
      return "done";
    });
    expect(await resultOf(work, (event) => heard.push(event))).toBe("done");
    expect(heard).toEqual([1, 2, 3]);
  });

  it("throws what the work throws, after what was told before", async () => {
    const heard: number[] = [];
    const work = eventsOf<number, never>(async (tell) => {
      await pause();
      tell(1);
      throw new Error("broken");
    });
    await expect(resultOf(work, (event) => heard.push(event))).rejects.toThrow("broken");
    expect(heard).toEqual([1]);
  });

  it("stops the work and waits for it where the listener leaves early", async () => {
    const log: string[] = [];
    const work = eventsOf<number, void>(async (tell, signal) => {
      for (let count = 0; !signal.aborted; count++) {
        tell(count);
        await pause();
      }
      log.push("stopped");
      throw new Error("stopped");
    });
    for await (const event of work) if (event === 2) break;
    expect(log).toEqual(["stopped"]);
  });

  it("hands on the caller's signal", async () => {
    const abort = new AbortController();
    const work = eventsOf<string, boolean>(async (tell, signal) => {
      tell("begun");
      await pause();
      return signal.aborted;
    }, abort.signal);
    expect(await resultOf(work, () => abort.abort())).toBe(true);
  });
});
