import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { Client } from "../../../src/evals/scoring/server-client.js";

let server: Server | undefined;
afterEach(() => {
  server?.closeAllConnections();
  server?.close();
});

async function serve(listener: RequestListener): Promise<string> {
  server = createServer(listener);
  await new Promise<void>((done) => server!.listen(0, "127.0.0.1", done));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`;
}

describe("a server that is asked", () => {
  it("is not asked again where it is silent: it may still be at work", async () => {
    let requests = 0;
    const base = await serve((request) => {
      requests++;
      request.resume();
    });
    await expect(new Client(base, { retryMs: 1, silenceMs: 100 }).post("/completions", {})).rejects.toMatchObject({
      kind: "stopped",
      where: base,
      line: expect.stringContaining("the server has said nothing for 0.10 s after /completions") as string,
    });
    expect(requests).toBe(1);
  });

  it("may take its time as long as it says something now and then", async () => {
    const base = await serve((request, response) => {
      request.resume();
      response.writeHead(200);
      let parts = 0;
      const more = setInterval(() => {
        response.write(" ");
        if (++parts < 6) return;
        clearInterval(more);
        response.end('{"a": 1}');
      }, 50);
    });
    expect(await new Client(base, { silenceMs: 200 }).get("/models")).toEqual({ a: 1 });
  });

  it("is asked again where it has trouble, and gets letters of all sizes as they are", async () => {
    const bodies: string[] = [];
    const base = await serve((request, response) => {
      let text = "";
      request.setEncoding("utf8").on("data", (part: string) => (text += part));
      request.on("end", () => {
        bodies.push(text);
        response.writeHead(bodies.length < 3 ? 503 : 200).end('{"text": "größer 😀"}');
      });
    });
    expect(await new Client(base, { retryMs: 1 }).post("/x", { prompt: "größer 😀" })).toEqual({ text: "größer 😀" });
    expect(bodies).toEqual(Array.from({ length: 3 }, () => '{"prompt":"größer 😀"}'));
  });

  it("ends at once with the signal", async () => {
    const base = await serve((request) => void request.resume());
    const stop = new AbortController();
    const asked = new Client(base, { retryMs: 1, signal: stop.signal }).get("/models");
    setTimeout(() => stop.abort(), 50);
    await expect(asked).rejects.toMatchObject({ kind: "interrupted" });
  });
});
