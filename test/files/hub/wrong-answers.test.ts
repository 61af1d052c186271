/** Hubs that answer something else than a Hub does, list what is no file, or send other bytes than announced. */
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { type IncomingMessage } from "node:http";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { isFileName } from "../../../src/files/hub/listing.js";
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
  notes,
  only,
  partial,
  repoDir,
  text,
  weights,
  useHostileHub,
} from "./hostile-hub.js";
import { commit, listed } from "./server.js";

useHostileHub();

describe("wrong answers", () => {
  const answers = (which: (request: IncomingMessage) => boolean, value: string): void => {
    hub.trouble.instead = only(which, (_, response) => void response.writeHead(200).end(value));
  };

  it.each([
    ["a login page", "<html>log in</html>"],
    ["nothing", ""],
    ["null", "null"],
    ["a number", "7"],
    ["a commit that is null", '{"sha":null}'],
    ["a commit that is a path", '{"sha":"../../../../../tmp/x"}'],
    ["a commit with a path behind it", `{"sha":"${commit}/.."}`],
    ["lists in lists without end", "[".repeat(100_000)],
  ])("%s names no commit", async (_, value) => {
    answers(isInfo, value);
    expect((await failure(get())).line).toMatch(
      /answers with something else than a Hub does|names no commit of the model/,
    );
    expect(existsSync(cacheDir)).toBe(false);
  });

  it.each([
    ["a login page", "<html>log in</html>"],
    ["null", "null"],
    ["a number", "7"],
    ["a list of null", "[null]"],
    ["lists in lists", "[".repeat(100_000) + "]".repeat(100_000)],
  ])("%s lists no files", async (_, value) => {
    answers(isTree, value);
    expect((await failure(get())).line).toMatch(/answers with something else than a Hub does|has no config\.json/);
  });

  it("names, sizes and checksums that are none name no file, inside the cache or elsewhere", async () => {
    const entry = listed(["x", weights]);
    const bad = [
      "..",
      ".",
      "../x",
      "/etc/passwd",
      "a\\b",
      "LICENSE.\0",
      "LICENSE.\u001b]0;x\u0007",
      "LICENSE.\n",
      "con.json",
      "LICENSE.:ads",
      "NOTICE. ",
      `LICENSE.${"x".repeat(300)}`,
      "constructor/../x",
    ];
    hub.trouble.instead = only(isTree, (_, response) =>
      json(response, [
        ...entries(),
        ...bad.map((path) => ({ ...entry, path })),
        ...[-1, 1.5, "9", null, 1e300].map((size, i) => ({ ...entry, path: `LICENSE.${i}`, size, lfs: undefined })),
        ...["../../x", "a/b", "", null, "0".repeat(39), "A".repeat(40)].map((oid, i) => ({
          ...entry,
          path: `NOTICE.${i}`,
          oid,
          lfs: undefined,
        })),
        { ...entry, path: "COPYING", lfs: { oid: "../../".repeat(21) + "x", size: 3 } },
        { ...entry, path: 7 },
        {},
        { type: "directory", path: "LICENSE", oid: "0" },
      ]),
    );
    const dir = await get();
    expectWhole(dir);
    expect(readdirSync(dir).sort()).toEqual(Object.keys(files).sort());
    expect(readdirSync(cacheDir)).toEqual(["models--org--tiny"]);
    for (const name of bad) expect(isFileName(name), name).toBe(false);
    for (const name of [
      "config.json",
      "LICENSE.模型.md",
      "model-00001-of-00002.safetensors",
      ".gitattributes",
      "console.json",
      "a b",
    ])
      expect(isFileName(name), name).toBe(true);
  });

  it.each(["file", "directory"])("a name that is listed twice, the second time as a %s, is refused", async (type) => {
    hub.trouble.instead = only(isTree, (_, response) =>
      json(response, [...entries(), { ...listed(["config.json", weights]), type }]),
    );
    expect((await failure(get())).line).toBe(
      'hf://org/tiny: the Hub lists "config.json" twice; run the same command later, or check HF_ENDPOINT',
    );
  });

  it.each([
    ["a part that begins elsewhere", { "content-range": `bytes 0-${weights.length - 1}/${weights.length}` }],
    ["a part that does not say where it begins", {}],
  ])("%s is not appended: the server is asked for the whole file", async (_, headers) => {
    mkdirSync(join(repoDir(), "blobs"), { recursive: true });
    writeFileSync(partial(), weights.subarray(0, 1000));
    hub.trouble.instead = only(
      (request) => isFile(request) && request.headers.range !== undefined,
      (__, response) => void response.writeHead(206, headers).end(text("x".repeat(1000))),
    );
    expectWhole(await get());
    expect(notes).toEqual([
      `${host()} sends whole files only: 1.0 kB of model.safetensors that are here come once more`,
    ]);
  });

  it("another length is asked for once more, then refused; what was here stays", async () => {
    mkdirSync(join(repoDir(), "blobs"), { recursive: true });
    writeFileSync(partial(), weights.subarray(0, 1000));
    hub.trouble.instead = only(isFile, (_, response) => void response.end("<html>log in</html>"));
    expect((await failure(get())).line).toContain("model.safetensors has 19 bytes, the Hub announced 200000");
    expect(notes).toEqual(["model.safetensors has 19 bytes, the Hub announced 200000, trying again: 2 of 2"]);
    expect(readFileSync(partial()).length).toBe(1000);
  });

  it("a file that is larger than the disk is not begun", async () => {
    hub.trouble.instead = only(isTree, (_, response) =>
      json(
        response,
        entries().map((entry) =>
          (entry as { path: string }).path === "tokenizer.json" ? { ...entry, size: 1e15 } : entry,
        ),
      ),
    );
    expect((await failure(get())).line).toContain("not enough disk space: 1.0");
    expect(hub.requests.some((request) => request.includes("/resolve/"))).toBe(false);
  });
});
