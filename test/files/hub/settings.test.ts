/** The settings of the environment. */
import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { hubSettings } from "../../../src/files/hub/settings.js";
import { temporaryFolder } from "../io/temporary.js";

const root = temporaryFolder();

describe("settings of the environment", () => {
  it("come from the variables and the token file of huggingface_hub", async () => {
    mkdirSync(join(root, "home"), { recursive: true });
    writeFileSync(join(root, "home", "token"), "hf_stored\n");
    expect(await hubSettings({ HF_HOME: join(root, "home") })).toMatchObject({
      endpoint: "https://huggingface.co",
      cacheDir: join(root, "home", "hub"),
      token: "hf_stored",
      offline: false,
    });
    expect(await hubSettings({ HF_HOME: join(root, "home"), HF_HUB_DISABLE_IMPLICIT_TOKEN: "1" })).toMatchObject({
      token: undefined,
    });
    expect(
      await hubSettings({ HF_TOKEN: "hf_a", HF_HUB_CACHE: "/c", HF_ENDPOINT: "http://mirror/", HF_HUB_OFFLINE: "1" }),
    ).toMatchObject({
      endpoint: "http://mirror",
      cacheDir: "/c",
      token: "hf_a",
      offline: true,
    });
    expect((await hubSettings({ XDG_CACHE_HOME: "/x", HF_TOKEN: "" })).cacheDir).toBe(join("/x", "huggingface", "hub"));
  });

  it("name a proxy that Node does not use", async () => {
    expect(await hubSettings({ HF_HOME: root, https_proxy: "http://user:pass@proxy" })).toMatchObject({
      unusedProxy: "https_proxy",
    });
    expect(await hubSettings({ HF_HOME: root })).toMatchObject({ unusedProxy: undefined });
  });

  it("take the token of a file with line breaks, and none of a folder or a pipe", async () => {
    const file = join(root, "token");
    writeFileSync(file, "\ufeff hf_stored\r\n\n");
    expect(await hubSettings({ HF_TOKEN_PATH: file })).toMatchObject({
      token: "hf_stored",
      tokenFrom: file,
    });
    expect(await hubSettings({ HF_TOKEN_PATH: root })).toMatchObject({ token: undefined });
    if (process.platform !== "win32") {
      const pipe = join(root, "pipe");
      execFileSync("mkfifo", [pipe]);
      expect(await hubSettings({ HF_TOKEN_PATH: pipe })).toMatchObject({ token: undefined });
    }
  });

  it("take a time to wait in seconds, and refuse what is no number of seconds up to a day", async () => {
    expect(await hubSettings({ HF_HOME: root, HF_HUB_DOWNLOAD_TIMEOUT: "7" })).toMatchObject({ stallMs: 7000 });
    for (const bad of ["soon", "0", "-1", "Infinity"])
      await expect(hubSettings({ HF_HUB_DOWNLOAD_TIMEOUT: bad })).rejects.toThrow("is no number of seconds");
  });
});
