/** Where the Hub is, where its cache is, and who asks: the environment variables of huggingface_hub. */
import { homedir } from "node:os";
import { join } from "node:path";
import { largest } from "../io/open.js";
import { readText } from "../io/ranges.js";

export interface HubSettings {
  readonly endpoint: string;
  /** Folder of `models--ORG--NAME` folders, shared with Python's huggingface_hub. */
  readonly cacheDir: string;
  readonly token: string | undefined;
  /** Use what the cache has and ask nobody. */
  readonly offline: boolean;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** HF_ENDPOINT, HF_HUB_CACHE, HF_HOME, HF_TOKEN (or the file that `hf auth login` writes), HF_HUB_OFFLINE. */
export async function hubSettings(env: Environment = process.env): Promise<HubSettings> {
  const given = (key: string): string | undefined => (env[key] === undefined || env[key].trim() === "" ? undefined : env[key].trim());
  const home = given("HF_HOME") ?? join(given("XDG_CACHE_HOME") ?? join(homedir(), ".cache"), "huggingface");
  const implicit = !isTrue(given("HF_HUB_DISABLE_IMPLICIT_TOKEN"));
  const stored = implicit ? await readText(given("HF_TOKEN_PATH") ?? join(home, "token"), largest.line).catch(() => "") : "";
  return {
    endpoint: (given("HF_ENDPOINT") ?? "https://huggingface.co").replace(/\/+$/, ""),
    cacheDir: given("HF_HUB_CACHE") ?? given("HUGGINGFACE_HUB_CACHE") ?? join(home, "hub"),
    token: given("HF_TOKEN") ?? (stored.trim() === "" ? undefined : stored.trim()),
    offline: isTrue(given("HF_HUB_OFFLINE")),
  };
}

function isTrue(value: string | undefined): boolean {
  return value !== undefined && /^(1|on|yes|true)$/i.test(value);
}
