import fc from "fast-check";
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

  it.each(["localhost", "LOCALHOST:1", "127.0.0.1:9999", "[::1]:7007"])("asks for the loopback by its name, through ssh -L by another port: %s", (host) => {
    expect(statusOf(get("/", { host }))).toBe("pass");
  });

  it.each(["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:7007", "0.0.0.0:7007", "10.0.0.1", "127.0.0.1:7007@evil", "", "localhost:7007, evil"])(
    "is no other site that has itself resolved to this machine: %s",
    (host) => {
      expect(statusOf(get("/", { host }))).toBe(421);
    },
  );

  it("is no page of another origin", () => {
    for (const origin of ["http://evil.example", "null", "https://127.0.0.1:7007", "http://127.0.0.1:7008", ""])
      expect(statusOf(get("/api/runs", { origin })), origin).toBe(403);
    expect(statusOf(get("/api/runs", { origin: "http://127.0.0.1:7007" }))).toBe("pass");
    for (const site of ["cross-site", "same-site", "x"]) expect(statusOf(get("/api/runs", { "sec-fetch-site": site }))).toBe(403);
  });

  it("acts only where that was allowed, by JSON, from this very page", () => {
    const post = (headers: RequestHead["headers"], actions = true): number | string =>
      statusOf(judge({ method: "POST", url: "/api/actions/start", headers: { host: "127.0.0.1:7007", cookie: known, ...headers } }, { ...options, actions }));
    const own = { origin: "http://127.0.0.1:7007", "content-type": "application/json" };
    expect(post(own)).toBe("pass");
    expect(post(own, false)).toBe(403);
    expect(post({ ...own, origin: undefined })).toBe(403);
    expect(post({ ...own, "content-type": "text/plain" })).toBe(400);
    for (const method of ["PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH"])
      expect(statusOf(judge({ method, url: "/", headers: { host: "localhost", cookie: known } }, options))).toBe(405);
  });

  it("passes only plain paths of the loopback with the cookie: 10,000 hostile requests", () => {
    const text = fc.oneof(
      fc.string({ maxLength: 40, unit: "binary" }),
      fc.constantFrom("/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/..\\..\\x", "/api/run?name=../../x", "/\u0000", "http://evil/", "*", "/./../x", "/a/..", "/api/runs#x"),
    );
    const host = fc.oneof(fc.constantFrom("127.0.0.1:7007", "localhost", "evil.example", "127.0.0.1.nip.io"), fc.string({ maxLength: 30 }));
    const head = fc.record({
      method: fc.constantFrom("GET", "POST", "HEAD", "PUT", "get", ""),
      url: text,
      headers: fc.record(
        {
          host: fc.oneof(host, fc.array(host, { maxLength: 2 })),
          cookie: fc.oneof(fc.constant(known), fc.string({ maxLength: 60 }), fc.array(fc.string(), { maxLength: 2 })),
          origin: fc.oneof(host.map((name) => `http://${name}`), fc.constant("null")),
          "sec-fetch-site": fc.constantFrom("same-origin", "cross-site", "none"),
          "content-type": fc.constantFrom("application/json", "text/plain", "application/x-www-form-urlencoded"),
        },
        { requiredKeys: [] },
      ),
    });
    let passed = 0;
    fc.assert(
      fc.property(head, (request) => {
        const verdict = judge(request, options);
        if (verdict.kind !== "pass") return;
        passed++;
        expect(verdict.path).toMatch(/^\/[\w./-]*$/);
        expect(verdict.path).not.toContain("..");
        expect(request.headers.host).toMatch(/^(localhost|127\.0\.0\.1(:7007)?)(:\d+)?$/i);
        expect(request.headers.cookie).toBe(known);
        if (request.headers.origin !== undefined) expect(request.headers.origin).toBe(`http://${String(request.headers.host)}`);
      }),
      { numRuns: 10_000 },
    );
    // The property says something only if some requests pass.
    expect(passed).toBeGreaterThan(0);
  });
});
