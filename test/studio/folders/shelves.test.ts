/** Models, reports, measurements of experts and launched trainings that lie below a folder. */
import { appendFileSync, mkdirSync, readFileSync, renameSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { specFromConfig } from "../../../src/model/decoder/config.js";
import type { ExpertFile } from "../../../src/studio/data/expert-types.js";
import type { ModelDetail, ModelRow } from "../../../src/studio/data/model-types.js";
import type { JobRow, ReportRow } from "../../../src/studio/data/types.js";
import { reportOf } from "../../../src/studio/folders/reports.js";
import { tinyConfig, writeExpertFile, writeJob } from "../folder.js";
import { Studio } from "../../../src/studio/server/studio.js";
import { Webhook } from "../../../src/studio/server/webhook.js";
import { recordOf } from "../../../src/surgery/convert/record.js";
import { planUpcycle } from "../../../src/surgery/planning/plan.js";
import { upcycleRecipe } from "../../../src/surgery/planning/recipe.js";
import { studioCommand } from "../../../src/cli/studio.js";
import { jsonInProcess } from "../../cli/in-process.js";
import { temporaryFolder } from "../../files/io/temporary.js";
import { golden } from "../../support/golden.js";

const dir = temporaryFolder();
const write = (name: string, content: unknown): void => {
  mkdirSync(join(dir, name, ".."), { recursive: true });
  writeFileSync(join(dir, name), typeof content === "string" ? content : JSON.stringify(content));
};
let studio: Studio;
let now = Date.now();
const ask = async <T>(address: string): Promise<T> => {
  const [path = "", query = ""] = address.split("?");
  return (await studio.answer(path, new URLSearchParams(query))) as T;
};

const measured = {
  tokens: 256,
  parentLoss: 3.2,
  childLoss: 3.2,
  maxAbsLogitDiff: 2e-6,
  meanAbsLogitDiff: 1e-7,
  maxAbsLogit: 20,
  klDivergence: 1e-13,
  topAgreement: 1,
};
beforeAll(async () => {
  const source = specFromConfig(tinyConfig("llama"), "config.json");
  const plan = planUpcycle(source, upcycleRecipe("E4G1T2"));
  write("dense/config.json", tinyConfig("llama"));
  write("moe/upcycle.json", recordOf(plan, ["dense"], "0.1.0", []));
  write("moe/preservation.json", measured);
  write("orphan/upcycle.json", recordOf(plan, ["elsewhere/gone"], "0.1.0", []));
  write("study/starts/E4G1T2-seed-0-aa/upcycle.json", recordOf(plan, ["dense"], "0.1.0", []));
  write("study/starts/E4G1T2-seed-0-aa.0123abcd.json", { ...measured, maxAbsLogitDiff: 4 });
  write("broken/upcycle.json", "{");
  writeExpertFile(dir);
  write("other.json", { model: "x" });
  writeJob(dir);
  studio = await Studio.open({ dir, actions: false }, () => now);
  await studio.look();
});

describe("upcycled models", () => {
  it("are listed with what was measured of them, beside the folder too, and without one that is damaged", async () => {
    const { models } = await ask<{ models: ModelRow[] }>("/api/models");
    expect(models.map(({ name, preservation }) => [name, preservation?.verdict])).toEqual([
      ["moe", "same"],
      ["orphan", undefined],
      ["study/starts/E4G1T2-seed-0-aa", "different"],
    ]);
    expect(models[0]).toMatchObject({
      recipe: "E4G1T2",
      parent: "dense",
      expected: "exact",
      preservation: { relative: 1e-7 },
    });
  });

  it("are shown with what every tensor is made of, by the very plan that conversion follows", async () => {
    const model = await ask<ModelDetail>("/api/model?name=moe");
    const { outputs } = planUpcycle(specFromConfig(tinyConfig("llama"), "config.json"), upcycleRecipe("E4G1T2"));
    expect(model.tensors.map(({ name }) => name)).toEqual(outputs.map(({ slot }) => slot.key));
    expect(model.tensors.find(({ name }) => /router/.test(name))).toMatchObject({
      shape: "4 × 16",
      made: expect.stringContaining("normal(std 0.02"),
    });
    expect(model.title).toContain("E4G1T2: llama to mixtral, 4 experts of size 24");
    expect(model.command?.slice(0, 5)).toEqual(["upcycle", "convert", join(dir, "dense"), "--recipe", "E4G1T2"]);
  });

  it("are printed by a command as the page has them, and so are measurements and alerts", async () => {
    for (const address of ["/api/model?name=moe", "/api/expert-file?name=experts.json", "/api/alerts", "/api/models"]) {
      const printed = await jsonInProcess(studioCommand(), "studio", dir, "--print", address);
      expect(printed).toEqual(JSON.parse(JSON.stringify(await ask(address))));
    }
  });

  it("say why there is no plan where the parent is not below the folder", async () => {
    expect(await ask<ModelDetail>("/api/model?name=orphan")).toMatchObject({
      tensors: [],
      noPlan: expect.stringContaining("elsewhere/gone is not below the folder"),
    });
  });
});

describe("reports and measurements", () => {
  it("are known by what they begin with", () => {
    const page = (title: string): string =>
      `<!doctype html>\n<meta name="generator" content="upcycle 1">\n<title>${title}</title>`;
    expect(reportOf(page("a &amp; b · upcycling plan"))).toEqual({ title: "a & b · upcycling plan", kind: "plan" });
    expect(reportOf(page("x · scaling law"))?.kind).toBe("law");
    expect(reportOf(page("x, y · evaluation"))?.kind).toBe("evaluation");
    expect(reportOf(page("x"))?.kind).toBe("other");
    expect(reportOf("<!doctype html><title>x · Upcycle study</title>")).toBeNull();
  });

  it("that are damaged take no view away but their own", async () => {
    const folder = temporaryFolder();
    const put = (name: string, text: string): void => {
      mkdirSync(join(folder, name, ".."), { recursive: true });
      writeFileSync(join(folder, name), text);
    };
    // A name with a tab, which no JSON text may hold; a result whose date is none.
    put("experts.json", '{"upcycle":"0.1.0","version":1,"model":"a\tb","family":"mixtral"}');
    put("e/results_1.json", JSON.stringify({ results: {}, "n-samples": {}, date: "today", model_name: 7 }));
    put("s/study.json", JSON.stringify({ version: 2, config: {} }));
    put("s/result.json", JSON.stringify({ version: 2, arms: [], name: null }));
    put("plan.json", '{"upcycle":"0.1.0","words":[]}');
    const other = await Studio.open({ dir: folder, actions: false });
    await other.look();
    const answer = (path: string, query: string): Promise<unknown> => other.answer(path, new URLSearchParams(query));
    expect(await answer("/api/overview", "")).toMatchObject({ expertFiles: [], runs: 0 });
    expect(await answer("/api/reports", "")).toMatchObject({ evaluations: [{ model: "7", date: 0 }] });
    expect(await answer("/api/evaluation", "name=e/results_1.json")).toMatchObject({ kind: "evaluation" });
    expect(await answer("/api/plan", "name=plan.json")).toBeNull();
    await expect(answer("/api/study", "name=s")).rejects.toMatchObject({
      kind: "input",
      message: "result.json lacks what a study's result has",
    });
  });

  it("of experts are shown with similarity and co-activation", async () => {
    expect(await ask<{ reports: ReportRow[]; expertFiles: unknown }>("/api/reports")).toEqual({
      reports: [],
      expertFiles: [{ name: "experts.json", model: "runs/moe" }],
      evaluations: [],
    });
    expect(await ask<ExpertFile>("/api/expert-file?name=experts.json")).toMatchObject({
      model: "runs/moe",
      layers: [
        {
          layer: 3,
          shares: [2, 0],
          dead: [1],
          entropy: 0.6123,
          weights: [
            [1, 0.5],
            [0.5, 1],
          ],
          coactivation: [
            [null, 1.5],
            [1.5, null],
          ],
          parent: [0.99, 0.98],
        },
      ],
    });
    expect(await ask("/api/expert-file?name=other.json")).toBeNull();
  });
});

describe("launched trainings", () => {
  it("are where their logs say, and go on as these grow", async () => {
    const row = async (): Promise<JobRow> => (await ask<{ jobs: JobRow[] }>("/api/jobs")).jobs[0]!;
    expect(await row()).toMatchObject({
      name: "job",
      where: "slurm",
      ids: ["4711"],
      iteration: 60,
      of: 60,
      loss: 1.036627,
    });
    const line = readFileSync(golden("megatron", "logs", "moe_scratch.log"), "utf8")
      .split("\n")
      .find((text) => /iteration +60\/ /.test(text))!;
    const next = line
      .replace(/iteration +60\//, "iteration       61/")
      .replace("lm loss: 1.036627E+00", "lm loss: NAN");
    expect(next).not.toBe(line);
    appendFileSync(join(dir, "job", "logs", "run.log"), `${next.slice(0, 40)}`);
    await studio.look((now += 4000));
    expect((await row()).iteration).toBe(60);
    appendFileSync(join(dir, "job", "logs", "run.log"), `${next.slice(40)}\n`);
    const { alerts } = await studio.look((now += 4000));
    expect(alerts).toContainEqual(expect.objectContaining({ run: "job", kind: "nan", step: 61 }));
    expect(await row()).toMatchObject({ iteration: 61, loss: null });
  });
});

describe("logs of launched trainings", () => {
  const head = readFileSync(golden("megatron", "logs", "moe_scratch.log"), "utf8");
  const iterationOf = async (folder: string, before: (log: string) => void): Promise<number> => {
    writeJob(folder);
    const log = join(folder, "job", "logs", "run.log");
    before(log);
    const other = await Studio.open({ dir: folder, actions: false });
    await other.look();
    await other.lookAtLive();
    const { jobs } = (await other.answer("/api/jobs", new URLSearchParams())) as { readonly jobs: JobRow[] };
    return jobs[0]?.iteration ?? 0;
  };

  it("are read on behind a line that is longer than what is read at a time", async () => {
    const end = await iterationOf(temporaryFolder(), (log) => writeFileSync(log, head));
    expect(end).toBeGreaterThan(0);
    // What is read first is the middle of the line alone.
    const folder = temporaryFolder();
    writeJob(folder);
    const log = join(folder, "job", "logs", "run.log");
    writeFileSync(log, "x".repeat((4 << 20) + 10));
    const other = await Studio.open({ dir: folder, actions: false });
    await other.look();
    appendFileSync(log, `${"x".repeat(4 << 20)}\n${head}`);
    for (let i = 0; i < 3; i++) await other.lookAtLive();
    const { jobs } = (await other.answer("/api/jobs", new URLSearchParams())) as { readonly jobs: JobRow[] };
    expect(jobs[0]?.iteration).toBe(end);
  });

  it("are not read in a folder that is a link", async () => {
    const iteration = await iterationOf(temporaryFolder(), (log) => {
      const elsewhere = temporaryFolder();
      renameSync(join(log, ".."), join(elsewhere, "logs"));
      symlinkSync(join(elsewhere, "logs"), join(log, ".."));
    });
    expect(iteration).toBe(0);
  });
});

describe("the webhook", () => {
  it("gets each kind of alert of a run once in five minutes, and a place where nobody listens stops nothing", async () => {
    const got: string[] = [];
    const server = createServer((request, response) => {
      let body = "";
      request.on("data", (chunk: Buffer) => (body += chunk.toString("utf8")));
      request.on("end", () => {
        got.push((JSON.parse(body) as { text: string }).text);
        response.end();
      });
    });
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    let time = 0;
    const problems: string[] = [];
    const tell = (message: string): void => void problems.push(message);
    const hook = new Webhook(`http://127.0.0.1:${(server.address() as AddressInfo).port}/x`, tell, () => time);
    const alert = {
      level: "error",
      kind: "nan",
      run: "a",
      step: 3,
      message: "the loss is not a number",
      count: 1,
    } as const;
    hook.send(alert);
    hook.send({ ...alert, step: 4 });
    hook.send({ ...alert, kind: "stall" });
    time = 400_000;
    hook.send({ ...alert, step: 5 });
    const end = Date.now() + 5000;
    while (got.length < 3 && Date.now() < end) await new Promise((done) => setTimeout(done, 10));
    server.closeAllConnections();
    server.close();
    expect(got.sort()).toEqual([
      "error: nan, a, step 3: the loss is not a number",
      "error: nan, a, step 5: the loss is not a number",
      "error: stall, a, step 3: the loss is not a number",
    ]);
    expect(problems).toEqual([]);
    const nowhere = new Webhook("http://127.0.0.1:2/secret", tell);
    nowhere.send(alert);
    nowhere.send({ ...alert, kind: "stall" });
    await expect.poll(() => problems.length).toBeGreaterThan(0);
    await new Promise((done) => setTimeout(done, 100));
    // Told once, and without the address, which may hold a secret.
    expect(problems).toEqual(["the webhook did not get an alert: ECONNREFUSED; check the address of --webhook"]);
  });
});
