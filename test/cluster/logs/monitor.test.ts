/** Lines of real logs (test/golden/megatron/logs, Megatron-LM on one H200), and of cases made by hand. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { RunMonitor, type Alert } from "../../../src/cluster/logs/monitor.js";
import { parseLine, type IterationEvent, type LogEvent } from "../../../src/files/formats/megatron-log.js";
import { golden } from "../../support/golden.js";

const linesOf = (name: string): string[] => readFileSync(golden("megatron", "logs", name), "utf8").split("\n");
const eventsOf = (lines: readonly string[]): LogEvent[] => lines.flatMap((line) => parseLine(line) ?? []);
const steps = (events: readonly LogEvent[]): IterationEvent[] =>
  events.filter((event): event is IterationEvent => event.type === "iteration");

const step = (more: string, iteration = 7): string =>
  ` [2026-08-22 15:22:22.123456] iteration ${iteration}/ 100 | consumed samples: 448 | elapsed time per iteration (ms): 500.0 |${more} loss scale: 1.0 | number of skipped iterations: 0 | number of nan iterations: 0 |`;

describe("lines of Megatron's logs", () => {
  it("give every field of every step of both real logs, as printed", () => {
    for (const name of ["dense.log", "moe_scratch.log"]) {
      const lines = linesOf(name);
      const printed = lines.filter((line) => /\biteration +\d+\/ /.test(line));
      const found = steps(eventsOf(lines));
      expect(found.length).toBe(printed.length);
      printed.forEach((line, i) => {
        const fields = [...line.matchAll(/\| ([^|:]+(?:\([^)]*\))?): +([^|]+?) (?=\|)/g)].map(([, key, value]) => [
          key!.trim(),
          value!.trim(),
        ]);
        expect(fields.length).toBeGreaterThan(8);
        expect(found[i]!.fields).toEqual(Object.fromEntries(fields));
      });
    }
  });

  it("of a mixture give losses, speed and balance as numbers", () => {
    const [first, ...others] = steps(eventsOf(linesOf("moe_scratch.log")));
    expect(first).toMatchObject({ iteration: 1, of: 60 });
    expect(others.at(-1)).toMatchObject({
      at: "2026-11-22 10:19:28.491883",
      iteration: 60,
      loss: 1.036627,
      losses: { "lm loss": 1.036627, load_balancing_loss: 1.079429 },
      milliseconds: 699.8,
      tflopsPerGpu: 35.7,
      learningRate: 3e-5,
      globalBatch: 64,
      consumedSamples: 3840,
      gradNorm: 1.713,
      skipped: 0,
      nan: 0,
    });
  });

  it("say with which arguments, and on how many GPUs, a run started", () => {
    const events = eventsOf(linesOf("moe_scratch.log"));
    expect(events.find(({ type }) => type === "started")).toMatchObject({ worldSize: 1 });
    const given = new Map(events.flatMap((event) => (event.type === "argument" ? [[event.name, event.value]] : [])));
    expect([given.get("num_experts"), given.get("seq_length"), given.get("load")]).toEqual(["8", "1024", "None"]);
    expect(events.filter(({ type }) => type === "saved")).toEqual([
      { type: "saved", at: "2026-11-22 10:19:43.606830", iteration: 60, dir: "checkpoints/moe2" },
    ]);
    expect(events.at(-1)!.type).toBe("memory");
  });

  it("without a loss are steps whose loss is not a number", () => {
    expect(parseLine(step(" "))).toMatchObject({ loss: NaN });
    expect(parseLine(step(" lm loss: 2.5E+00 | grad norm: nan |"))).toMatchObject({ loss: 2.5, gradNorm: NaN });
  });

  it("of several nodes and of Bridge, without microseconds, are read alike", () => {
    expect(parseLine(`3: ${step(" lm loss: 2.5E+00 |")}`)).toMatchObject({ iteration: 7, loss: 2.5 });
    expect(parseLine("[2026-08-22 15:22:22] iteration 9/ 100 | lm loss: 1.0E+00 |")).toMatchObject({
      at: "2026-08-22 15:22:22",
      loss: 1,
    });
  });

  it("of validations name their set", () => {
    const printed = (where: string, suffix = ""): LogEvent | null =>
      parseLine(
        ` validation${suffix} loss at iteration 1200${where} | lm loss value: 2.034500E+00 | lm loss PPL: 7.648400E+00 |`,
      );
    expect(printed("")).toEqual({
      type: "validation",
      iteration: 1200,
      set: "validation",
      losses: { "lm loss": 2.0345, "lm loss PPL": 7.6484 },
    });
    expect(printed(" on validation set")).toMatchObject({ set: "validation" });
    expect(printed(" on test set")).toMatchObject({ set: "test" });
    expect(printed("", " code")).toMatchObject({ set: "code" });
  });

  it("that mean a broken load, a failure or a lost node are problems", () => {
    const kindOf = (line: string): unknown => {
      const event = parseLine(line);
      return event?.type === "problem" ? event.kind : event;
    };
    expect(kindOf("load_return: _IncompatibleKeys(missing_keys=['decoder...'])")).toBe("load");
    expect(kindOf("    will not load any checkpoints and will start from random")).toBe("random-weights");
    expect(kindOf("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB")).toBe("memory");
    expect(kindOf("[rank3]: KeyError: 'decoder.layers.mlp.router.weight from model not in state dict'")).toBe("error");
    expect(kindOf("slurmstepd: error: *** JOB 12 ON node3 CANCELLED DUE TO NODE FAILURE")).toBe("node");
    expect(kindOf("INFO: nothing to see")).toBeNull();
  });

  it("of any length and content end", () => {
    expect(parseLine(`iteration 1/ 2 | lm loss: 1 |${"|".repeat(1e6)}`)).toMatchObject({ iteration: 1 });
    expect(parseLine("x".repeat(5e6))).toBeNull();
  });
});

describe("a run that is watched", () => {
  const watched = (lines: readonly string[], options = {}): { monitor: RunMonitor; alerts: Alert[] } => {
    const monitor = new RunMonitor(options);
    const alerts = eventsOf(lines).flatMap((event, i) => monitor.take(event, i * 1000));
    return { monitor, alerts };
  };
  const healthy = Array.from({ length: 20 }, (_, i) =>
    step(` lm loss: ${(3 - i / 100).toFixed(6)} | load_balancing_loss: 1.05 |`, i + 1),
  );

  it("of the real logs has no alerts, and the last line's state", () => {
    for (const [name, loss] of [
      ["dense.log", 1.2],
      ["moe_scratch.log", 1.036627],
    ] as const) {
      const { monitor, alerts } = watched(linesOf(name), { peak: 989e12 });
      expect(alerts).toEqual([]);
      expect(monitor.state).toMatchObject({ iteration: 60, of: 60, secondsLeft: 0, savedIteration: 60 });
      if (name === "moe_scratch.log") expect(monitor.state.loss).toBe(loss);
      expect(monitor.state.mfu).toBeGreaterThan(0.03);
      expect(monitor.state.tokensPerSecond).toBeGreaterThan(50_000);
    }
  });

  const kinds = (lines: readonly string[]): string[] => watched([...healthy, ...lines]).alerts.map(({ kind }) => kind);

  it("alerts of a lost number, a jump of the loss, few used experts, slow and skipped steps", () => {
    expect(kinds([])).toEqual([]);
    expect(kinds([step(" ", 21)])).toEqual(["nan"]);
    expect(kinds([step(" lm loss: 6.0 |", 21)])).toEqual(["divergence"]);
    expect(kinds([step(" lm loss: 2.8 | load_balancing_loss: 3.1 |", 21)])).toEqual(["collapse"]);
    expect(kinds([step(" lm loss: 2.8 |", 21).replace("500.0", "900.0")])).toEqual(["slow"]);
    expect(kinds([step(" lm loss: 2.8 |", 21).replace("skipped iterations: 0", "skipped iterations: 2")])).toEqual([
      "skipped",
    ]);
    expect(kinds(["load_return: missing", "load_return: missing"])).toEqual(["load"]);
  });

  it("alerts of an infinite loss at its first step, and of steps that are skipped again and again", () => {
    expect(watched([step(" lm loss: inf |", 1)]).alerts.map(({ kind, message }) => [kind, message])).toEqual([
      ["nan", "the loss is infinite"],
    ]);
    const skipping = [21, 22].map((at) =>
      step(" lm loss: 2.8 |", at).replace("skipped iterations: 0", "skipped iterations: 1"),
    );
    expect(kinds(skipping)).toEqual(["skipped", "skipped"]);
  });

  it("tells of a problem again when it comes again behind a restart", () => {
    const start = "using world size: 8, data-parallel size: 8";
    const lost = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB";
    const { alerts } = watched([start, ...healthy, lost, lost, start, lost]);
    expect(alerts.map(({ kind }) => kind)).toEqual(["memory", "restart", "memory"]);
  });

  it("that starts again goes on with its last checkpoint's step, and says so once", () => {
    const again = [
      "using world size: 8, data-parallel size: 8",
      ...healthy,
      "using world size: 8, data-parallel size: 8",
      step(" lm loss: 2.9 |", 11),
    ];
    const { monitor, alerts } = watched(again);
    expect(alerts.map(({ kind }) => kind)).toEqual(["restart", "restart"]);
    expect(monitor.state).toMatchObject({ iteration: 11, restarts: 1 });
  });

  it("printed by two nodes counts each step once", () => {
    const { monitor } = watched(healthy.flatMap((line) => [line, `1: ${line}`]));
    expect(monitor.state).toMatchObject({ iteration: 20, nanSteps: 0 });
    const lost = step(" ", 21).replace("nan iterations: 0", "nan iterations: 1");
    const { monitor: second, alerts } = watched([...healthy, lost, `1: ${lost}`]);
    expect(alerts.map(({ kind }) => kind)).toEqual(["nan"]);
    expect(second.state.nanSteps).toBe(1);
  });

  it("that says nothing stands still, and says that once", () => {
    const { monitor } = watched(healthy, { stallSeconds: 60 });
    expect(monitor.tick(19_000 + 59_000)).toEqual([]);
    expect(monitor.tick(19_000 + 61_000).map(({ kind }) => kind)).toEqual(["stall"]);
    expect(monitor.tick(19_000 + 99_000)).toEqual([]);
  });
});
