/** Why there is no answer, in words that a user can act on. */
import { createServer as createRawServer } from "node:net";
import { describe, expect, it } from "vitest";
import { networkTrouble, type RequestSubject } from "../../../src/files/hub/failures.js";
import { hubLimits } from "../../../src/files/hub/limits.js";
import { failure, get, hub, listen, notes, useHostileHub } from "./hostile-hub.js";

useHostileHub();

describe("why there is no answer", () => {
  const subject: RequestSubject = {
    where: "hf://a/b",
    repo: "a/b",
    revision: "main",
    endpoint: "https://hub",
    token: true,
    proxy: undefined,
    limits: hubLimits,
  };
  const line = (code: string, extra: Partial<RequestSubject> = {}): string =>
    networkTrouble(
      new TypeError("fetch failed", { cause: Object.assign(new Error("x"), { code }) }),
      new URL("https://hub/secret"),
      false,
      { ...subject, ...extra },
    ).failure.line;

  it.each([
    ["ENOTFOUND", "cannot reach https://hub (no address is known for this name, ENOTFOUND); check the network"],
    ["ECONNREFUSED", "(it refuses connections, ECONNREFUSED); check the network"],
    ["ENETUNREACH", "(no way leads there, ENETUNREACH); check the network"],
    ["UND_ERR_CONNECT_TIMEOUT", "(no connection in time, UND_ERR_CONNECT_TIMEOUT); check the network"],
    [
      "DEPTH_ZERO_SELF_SIGNED_CERT",
      "(its certificate is not accepted, DEPTH_ZERO_SELF_SIGNED_CERT); check the clock and HF_ENDPOINT",
    ],
    ["UNABLE_TO_VERIFY_LEAF_SIGNATURE", "its certificate is not accepted"],
    ["ERR_TLS_CERT_ALTNAME_INVALID", "its certificate is not accepted"],
    ["ERR_SSL_WRONG_VERSION_NUMBER", "it does not speak TLS"],
    ["HPE_INVALID_CONSTANT", "its answer is no HTTP (hub: HPE_INVALID_CONSTANT); check HF_ENDPOINT"],
    ["ECONNRESET", "the connection broke (hub: ECONNRESET); run the same command to go on"],
  ])("is said for the code %s: %s", (code, words) => {
    expect(line(code)).toContain(words);
    expect(line(code)).not.toContain("secret");
    if (!words.includes("network")) expect(line(code)).not.toContain("check the network");
  });

  it("may be a proxy that Node does not use, which is named then", () => {
    expect(line("ENOTFOUND", { proxy: "HTTPS_PROXY" })).toContain(
      "HTTPS_PROXY is set, which Node's fetch uses from Node 22.21 on with NODE_USE_ENV_PROXY=1 alone",
    );
    expect(line("CERT_HAS_EXPIRED", { proxy: "HTTPS_PROXY" })).not.toContain("HTTPS_PROXY");
  });

  it("is said of servers that speak SSH, plain HTTP in place of TLS, or nothing", async () => {
    const raw = createRawServer((socket) => socket.on("error", () => undefined).end("SSH-2.0-OpenSSH\r\n"));
    const endpoint = await listen(raw);
    expect((await failure(get({ endpoint, limits: { attempts: 2 } }))).line).toContain("its answer is no HTTP");
    expect((await failure(get({ endpoint: `https://127.0.0.1:${new URL(hub.endpoint).port}` }))).line).toContain(
      "it does not speak TLS",
    );
    raw.close();
    expect((await failure(get({ endpoint }))).line).toContain("it refuses connections, ECONNREFUSED");
  });

  it("does not hide that the token would travel unencrypted", async () => {
    const error = failure(get({ endpoint: "http://127.0.0.1.invalid", signal: AbortSignal.abort() }));
    expect((await error).kind).toBe("interrupted");
    expect(notes).toEqual([
      "warning: the token goes to 127.0.0.1.invalid unencrypted, because HF_ENDPOINT begins with http://",
    ]);
  });
});
