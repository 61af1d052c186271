import { describe, expect, it } from "vitest";
import { judge, newToken, type RequestHead, type Verdict } from "../../../src/studio/server/guard.js";

const options = { token: newToken(), cookie: "upcycle-studio-7007", actions: true };
const known = `upcycle-studio-7007=${options.token}`;
const get = (url: string, headers: RequestHead["headers"] = {}): Verdict =>
  judge({ method: "GET", url, headers: { host: "127.0.0.1:7007", cookie: known, ...headers } }, options);
const statusOf = (verdict: Verdict): number | string => (verdict.kind === "refused" ? verdict.status : verdict.kind);

describe("who may ask", () => {
  it("is who opened the printed address: the token becomes a cookie, and only the cookie counts", () => {
    expect(statusOf(get(`/?token=${options.token}`, { cookie: undefined }))).toBe("welcome");
    expect(statusOf(get(`/?token=${options.token}x`))).toBe(401);
    expect(statusOf(get("/", { cookie: undefined }))).toBe(401);
    expect(statusOf(get("/api/runs", { cookie: `upcycle-studio-7007=${newToken()}` }))).toBe(401);
    expect(statusOf(get("/api/runs", { cookie: `other=1; ${known}` }))).toBe("pass");
    expect(statusOf(get(`/api/runs?token=${options.token}`, { cookie: undefined }))).toBe(401);
  });

  it.each(["localhost", "LOCALHOST:1", "127.0.0.1:9999", "[::1]:7007"])(
    "asks for the loopback by its name, through ssh -L by another port: %s",
    (host) => {
      expect(statusOf(get("/", { host }))).toBe("pass");
    },
  );

  it.each([
    "evil.example",
    "127.0.0.1.evil.example",
    "localhost.evil.example:7007",
    "0.0.0.0:7007",
    "10.0.0.1",
    "127.0.0.1:7007@evil",
    "",
    "localhost:7007, evil",
  ])("is no other site that has itself resolved to this machine: %s", (host) => {
    expect(statusOf(get("/", { host }))).toBe(421);
  });

  it("is no page of another origin", () => {
    for (const origin of ["http://evil.example", "null", "https://127.0.0.1:7007", "http://127.0.0.1:7008", ""])
      expect(statusOf(get("/api/runs", { origin })), origin).toBe(403);
    expect(statusOf(get("/api/runs", { origin: "http://127.0.0.1:7007" }))).toBe("pass");
    for (const site of ["cross-site", "same-site", "x"])
      expect(statusOf(get("/api/runs", { "sec-fetch-site": site }))).toBe(403);
  });

  it("acts only where that was allowed, by JSON, from this very page", () => {
    const post = (headers: RequestHead["headers"], actions = true): number | string =>
      statusOf(
        judge(
          { method: "POST", url: "/api/actions/start", headers: { host: "127.0.0.1:7007", cookie: known, ...headers } },
          { ...options, actions },
        ),
      );
    const own = { origin: "http://127.0.0.1:7007", "content-type": "application/json" };
    expect(post(own)).toBe("pass");
    expect(post(own, false)).toBe(403);
    expect(post({ ...own, origin: undefined })).toBe(403);
    expect(post({ ...own, "content-type": "text/plain" })).toBe(400);
    for (const method of ["PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH"])
      expect(statusOf(judge({ method, url: "/", headers: { host: "localhost", cookie: known } }, options))).toBe(405);
  });

  it("passes only plain paths of the loopback with the cookie: 10,000 hostile requests", () => {
    const draw = numbers();
    const one = <T>(list: readonly T[]): T => list[Math.floor(draw() * list.length)]!;
    const noise = (): string =>
      Array.from({ length: Math.floor(draw() * 30) }, () => String.fromCharCode(Math.floor(draw() * 300))).join("");
    const maybe = <T>(chance: number, make: () => T): T | undefined => (draw() < chance ? make() : undefined);
    const hosts = ["127.0.0.1:7007", "localhost", "evil.example", "127.0.0.1.nip.io"];
    const urls = [
      "/",
      "/api/runs",
      "/../../etc/passwd",
      "/%2e%2e/%2e%2e/etc/passwd",
      "//etc/passwd",
      "/..\\..\\x",
      "/api/run?name=../../x",
      "/\u0000",
      "http://evil/",
      "*",
      "/./../x",
      "/a/..",
      "/api/runs#x",
    ];
    let passed = 0;
    for (let i = 0; i < 10_000; i++) {
      const request: RequestHead = {
        method: one(["GET", "GET", "POST", "HEAD", "PUT", "get", ""]),
        url: draw() < 0.3 ? `/${noise()}` : one(urls),
        headers: {
          host: draw() < 0.1 ? noise() : draw() < 0.1 ? [one(hosts), one(hosts)] : one(hosts),
          cookie: draw() < 0.7 ? known : draw() < 0.5 ? noise() : [known, known],
          origin: maybe(0.3, () => (draw() < 0.2 ? "null" : `http://${draw() < 0.2 ? noise() : one(hosts)}`)),
          "sec-fetch-site": maybe(0.3, () => one(["same-origin", "cross-site", "none"])),
          "content-type": maybe(0.5, () =>
            one(["application/json", "text/plain", "application/x-www-form-urlencoded"]),
          ),
        },
      };
      const verdict = judge(request, options);
      if (verdict.kind !== "pass") continue;
      passed++;
      const { host, cookie, origin } = request.headers;
      const isPlain = /^\/[\w./-]*$/.test(verdict.path) && !verdict.path.includes("..");
      const isOwn = /^(localhost|127\.0\.0\.1:7007)$/i.test(String(host)) && cookie === known;
      const isSame = origin === undefined || origin === `http://${String(host)}`;
      expect([isPlain, isOwn, isSame], JSON.stringify(request)).toEqual([true, true, true]);
    }
    // The rule says something only if some requests pass.
    expect(passed).toBeGreaterThan(100);
  });
});

/** Numbers from 0 to 1, the same in every run of the tests. */
function numbers(): () => number {
  let state = 7;
  return () => (state = (state * 48_271) % 2_147_483_647) / 2_147_483_647;
}
