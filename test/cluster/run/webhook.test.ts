import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { watchRun } from "../../../src/cluster/run/watch.js";

const folder = mkdtempSync(join(tmpdir(), "upcycle-webhook-"));
afterAll(() => rmSync(folder, { recursive: true }));

describe("a run that is watched with a webhook", () => {
  it("says once that the webhook does not take its alerts", async () => {
    const log = join(folder, "run.log");
    const lost = (iteration: number): string =>
      ` iteration ${iteration}/ 100 | consumed samples: ${8 * iteration} | elapsed time per iteration (ms): 900.0 | ` +
      "learning rate: 1.0E-04 | global batch size: 8 | lm loss: NAN | loss scale: 1.0 | grad norm: NAN | " +
      "number of skipped iterations: 0 | number of nan iterations: 1 |\n";
    writeFileSync(log, [1, 2, 3].map(lost).join(""));
    let posts = 0;
    const server = createServer((request, response) => {
      posts++;
      request.resume();
      response.writeHead(404).end("no such hook");
    });
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    const webhook = `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`;
    const told: string[] = [];
    for await (const event of watchRun({ names: [log], once: true, webhook, now: () => 0 }))
      if (event.type === "undelivered") told.push(event.message);
    server.closeAllConnections();
    server.close();
    expect(posts).toBeGreaterThan(0);
    expect(told).toEqual(["the webhook did not get an alert: it answers 404; check the address of --webhook"]);
  });
});
