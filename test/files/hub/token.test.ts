/** The token and passwords go to the Hub alone, whatever a Hub or a redirect asks for. */
import { existsSync, lstatSync, readFileSync, readdirSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { valueAt } from "../../../src/base/at.js";
import {
  cacheDir,
  entries,
  expectWhole,
  failure,
  files,
  get,
  host,
  hub,
  isFile,
  isInfo,
  isTree,
  json,
  listen,
  only,
  stranger,
  token,
  urlOf,
  weights,
  useHostileHub,
} from "./hostile-hub.js";
import { commit } from "./server.js";

useHostileHub();

describe("the token", () => {
  it.each([
    ["another port", () => `${stranger.origin}/more?cursor=2`],
    ["another scheme", () => `https://${host()}/api/models/org/tiny/tree/x`],
    ["another name of the host", () => hub.endpoint.replace("127.0.0.1", "localhost")],
    ["an address with a password", () => hub.endpoint.replace("//", "//user:swordfish@")],
  ])("is not sent where a list of files goes on at %s: the list is refused", async (_, next) => {
    hub.trouble.instead = only(isTree, (__, response) => json(response, [], { link: `<${next()}>; rel="next"` }));
    const error = await failure(get());
    expect([error.kind, error.line]).toEqual([
      "stopped",
      expect.stringContaining(`hf://org/tiny: ${host()} continues its list of files at another address (`) as string,
    ]);
    expect(stranger.requests).toEqual([]);
  });

  it("goes along to a next page of the Hub itself, however the page is named", async () => {
    const [first, ...rest] = entries();
    const pages: Record<string, [object[], string?]> = {
      "": [[first!], `</api/models/org/tiny/tree/${commit}?cursor=2>; rel=next`],
      "2": [rest],
    };
    const tokens: (string | undefined)[] = [];
    hub.trouble.instead = only(isTree, (request, response) => {
      tokens.push(request.headers.authorization);
      const [page, link] = valueAt(pages, new URL(urlOf(request), "http://hub").searchParams.get("cursor") ?? "");
      json(response, page, link === undefined ? {} : { link });
    });
    expectWhole(await get());
    expect(tokens).toEqual([`Bearer ${token}`, `Bearer ${token}`]);
  });

  it("stays behind where a file is stored elsewhere, also on the way back", async () => {
    const tokens: (string | undefined)[] = [];
    hub.trouble.instead = (request, response) => {
      if (urlOf(request).startsWith("/store/")) {
        tokens.push(request.headers.authorization);
        response.end(weights);
        return true;
      }
      return only(
        isFile,
        (_, answer) =>
          void answer
            .writeHead(302, { location: `${stranger.origin}/cdn?signature=swordfish`, "set-cookie": "a=b" })
            .end(),
      )(request, response);
    };
    stranger.reply = (_, response) => void response.writeHead(307, { location: `${hub.endpoint}/store/blob` }).end();
    expectWhole(await get());
    expect(stranger.requests).toEqual([
      { url: "/cdn?signature=swordfish", authorization: undefined, cookie: undefined },
    ]);
    expect(tokens).toEqual([undefined]);
  });

  it("stays behind where the API itself is redirected, and the refusal says why", async () => {
    hub.trouble.instead = only(
      isInfo,
      (_, response) => void response.writeHead(301, { location: `${stranger.origin}/api` }).end(),
    );
    stranger.reply = (_, response) => void response.writeHead(401).end();
    expect((await failure(get())).line).toContain(
      `${stranger.origin} says 401, to which ${hub.endpoint} sends the request (without the token)`,
    );
    expect(stranger.requests.map(({ authorization }) => authorization)).toEqual([undefined]);
  });

  it("is not given to stores that answer as if files were Xet chunks", async () => {
    hub.trouble.instead = only(
      (request) => isFile(request) && (request.headers.accept ?? "").includes("xet"),
      (_, response) => {
        response
          .writeHead(200, {
            "content-type": "application/vnd.xet-fileinfo+json",
            "x-linked-size": weights.length,
            "x-xet-hash": "0".repeat(64),
            "x-linked-etag": `"${"../../".repeat(9)}x"`,
            "x-repo-commit": "../../..",
            link: ["xet-auth", "xet-reconstruction-info"]
              .map((rel) => `<${stranger.origin}/${rel}>; rel="${rel}"`)
              .join(", "),
            etag: '"/etc/passwd"',
          })
          .end("{}");
      },
    );
    stranger.reply = (_, response) => void response.writeHead(500).end();
    expectWhole(await get());
    expect(stranger.requests).toEqual([]);
    expect(readdirSync(cacheDir)).toEqual(["models--org--tiny"]);
  });

  it.each([
    ["ftp://other/x", "sends the request from http:// to ftp://"],
    ["http://user:swordfish@127.0.0.1:1/x", "sends the request to an address with a password in it"],
    ["http://[", "sends the request to an address that is none"],
    ["", "sends the request to an address that is none"],
  ])("is not risked on a redirect to %j", async (location, words) => {
    hub.trouble.instead = only(isInfo, (_, response) => void response.writeHead(302, { location }).end());
    expect((await failure(get())).line).toContain(words);
  });

  it("never shows in a message, whatever is wrong with it or the address", async () => {
    for (const [secret, words] of [
      ["hf_secret\nsecret", "has spaces, line breaks or other characters"],
      ["hf_sécret", "other characters"],
      ["secret", 'does not begin with "hf_"'],
    ] as const) {
      const error = await failure(get({ secret }));
      expect([error.kind, error.line]).toEqual(["input", expect.stringContaining(words) as string]);
    }
    for (const endpoint of ["https://user:swordfish@mirror", "user:swordfish@mirror", "http://swordfish@mirror:1/x"]) {
      expect((await failure(get({ endpoint }))).line).toContain(
        "HF_ENDPOINT: the address has a user name or password in it",
      );
    }
    for (const endpoint of ["http://mirror?x=1", "http://mirror/#x"])
      expect((await failure(get({ endpoint }))).line).toContain("is no address");
    const filesOf = (dir: string): string[] =>
      existsSync(dir) ? readdirSync(dir, { recursive: true, encoding: "utf8" }) : [];
    await get();
    for (const name of filesOf(cacheDir).filter((path) => lstatSync(join(cacheDir, path)).isFile()))
      expect(readFileSync(join(cacheDir, name), "utf8")).not.toContain(token);
  });

  it("is sent to an endpoint below a path", async () => {
    const mirror = createServer((request, response) => {
      const { pathname } = new URL(urlOf(request), "http://hub");
      if (request.headers.authorization !== `Bearer ${token}` || !pathname.startsWith("/hf/"))
        return void response.writeHead(400).end();
      if (isInfo(request)) return json(response, { sha: commit });
      if (isTree(request)) return json(response, entries());
      response.end(files[pathname.split("/").at(-1) as keyof typeof files]);
    });
    expectWhole(await get({ endpoint: `${await listen(mirror)}/hf` }));
    mirror.closeAllConnections();
    mirror.close();
  });
});
