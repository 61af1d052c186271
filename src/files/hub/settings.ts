/** Where the Hub is, where its cache is, and who asks: the environment variables of huggingface_hub. */
import { homedir } from "node:os";
import { join } from "node:path";
import { inputError } from "../../base/errors.js";
import { sizeLimits } from "../io/open.js";
import { readText } from "../io/ranges.js";

/** Where the Hub is reached, with which token, and where its cache lies. */
export interface HubSettings {
  readonly endpoint: string;
  /** Folder of `models--ORG--NAME` folders, shared with Python's huggingface_hub. */
  readonly cacheDir: string;
  readonly token: string | undefined;
  /** The variable or file that the token is from. */
  readonly tokenFrom?: string | undefined;
  /** Use what the cache has and ask nobody. */
  readonly offline: boolean;
  /** How long to wait for the next byte, where the default is not meant. */
  readonly stallMs?: number | undefined;
  /** The variable that names a proxy which Node's fetch does not use. */
  readonly unusedProxy?: string | undefined;
}

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * HF_ENDPOINT, HF_HUB_CACHE, HF_HOME, HF_TOKEN (or the file that `hf auth login` writes), HF_HUB_OFFLINE,
 * HF_HUB_DOWNLOAD_TIMEOUT. Throws inputError for a timeout that is no number of seconds.
 */
export async function hubSettings(env: Environment = process.env): Promise<HubSettings> {
  const given = (key: string): string | undefined =>
    env[key] === undefined || env[key].trim() === "" ? undefined : env[key].trim();
  const home = given("HF_HOME") ?? join(given("XDG_CACHE_HOME") ?? join(homedir(), ".cache"), "huggingface");
  const implicit = !isTrue(given("HF_HUB_DISABLE_IMPLICIT_TOKEN"));
  const tokenFile = given("HF_TOKEN_PATH") ?? join(home, "token");
  const stored = given("HF_TOKEN") === undefined && implicit ? (await smallText(tokenFile)).trim() : "";
  const tokenFrom = given("HF_TOKEN") !== undefined ? "HF_TOKEN" : stored === "" ? undefined : tokenFile;
  return {
    endpoint: (given("HF_ENDPOINT") ?? "https://huggingface.co").replace(/\/+$/, ""),
    cacheDir: given("HF_HUB_CACHE") ?? given("HUGGINGFACE_HUB_CACHE") ?? join(home, "hub"),
    token: given("HF_TOKEN") ?? (stored === "" ? undefined : stored),
    tokenFrom,
    offline: isTrue(given("HF_HUB_OFFLINE")),
    stallMs: milliseconds(given("HF_HUB_DOWNLOAD_TIMEOUT")),
    unusedProxy: unusedProxy(given),
  };
}

/** Throws inputError for a token that no header can carry; no message shows any of it. */
export function requireToken({ token, tokenFrom = "HF_TOKEN" }: HubSettings): void {
  if (token === undefined) return;
  if (!token.startsWith("hf_"))
    throw inputError('the token of the Hub does not begin with "hf_"', { where: tokenFrom });
  if (!/^[\x21-\x7e]+$/.test(token))
    throw inputError("the token of the Hub has spaces, line breaks or other characters in it that no token has", {
      where: tokenFrom,
      hint: "write the token alone",
    });
}

/** The text of a small regular file, and "" for anything else: a pipe would be waited for without end. */
export async function smallText(path: string): Promise<string> {
  return readText(path, sizeLimits.line).catch(() => "");
}

function milliseconds(seconds: string | undefined): number | undefined {
  if (seconds === undefined) return undefined;
  const value = Number(seconds);
  if (value > 0 && value <= 86_400) return value * 1000;
  throw inputError(`"${seconds}" is no number of seconds up to a day`, {
    where: "HF_HUB_DOWNLOAD_TIMEOUT",
    hint: "write one such as 20, or leave it out",
  });
}

/** Node's fetch uses no proxy before 22.21, and none later unless NODE_USE_ENV_PROXY says so. */
function unusedProxy(given: (key: string) => string | undefined): string | undefined {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  const able = major >= 24 || (major === 22 && minor >= 21);
  if (able && given("NODE_USE_ENV_PROXY") === "1") return undefined;
  return ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"].find(
    (key) => given(key) !== undefined,
  );
}

function isTrue(value: string | undefined): boolean {
  return value !== undefined && /^(1|on|yes|true)$/i.test(value);
}
