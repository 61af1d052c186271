/** Where the Hub is, where its cache is, and who asks: the environment variables of huggingface_hub. */
import { homedir } from "node:os";
import { join } from "node:path";
import { inputError } from "../../base/errors.js";
import { sizeLimits } from "../io/open.js";
import { readText } from "../io/ranges.js";

/** Where the Hub is reached, with which token, and where its cache lies. */
export interface HubSettings {
  /** Address of the Hub, without a slash at the end. */
  readonly endpoint: string;
  /** Folder of `models--ORG--NAME` folders, shared with Python's huggingface_hub. */
  readonly cacheDir: string;
  /** Who asks; undefined: nobody that the Hub knows. */
  readonly token: string | undefined;
  /** The variable or file that the token is from. */
  readonly tokenFrom?: string | undefined;
  /** Whether to use what the cache has and ask nobody. */
  readonly offline: boolean;
  /** Milliseconds to wait for the next byte, in place of the default. */
  readonly stallMs?: number | undefined;
  /** The variable that names a proxy which Node's fetch does not use. */
  readonly unusedProxy?: string | undefined;
}

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * The settings of the environment: HF_ENDPOINT, HF_HUB_CACHE, HF_HOME, HF_TOKEN (or the file that `hf auth login`
 * writes), HF_HUB_OFFLINE, HF_HUB_DOWNLOAD_TIMEOUT. Throws inputError for a timeout that is no number of seconds.
 */
export async function hubSettings(env: Environment = process.env): Promise<HubSettings> {
  const variable = (key: string): string | undefined =>
    env[key] === undefined || env[key].trim() === "" ? undefined : env[key].trim();
  const home = variable("HF_HOME") ?? join(variable("XDG_CACHE_HOME") ?? join(homedir(), ".cache"), "huggingface");
  const readsTokenFile = !isTrue(variable("HF_HUB_DISABLE_IMPLICIT_TOKEN"));
  const tokenFile = variable("HF_TOKEN_PATH") ?? join(home, "token");
  const storedToken = variable("HF_TOKEN") === undefined && readsTokenFile ? (await smallText(tokenFile)).trim() : "";
  const tokenFrom = variable("HF_TOKEN") !== undefined ? "HF_TOKEN" : storedToken === "" ? undefined : tokenFile;
  return {
    endpoint: (variable("HF_ENDPOINT") ?? "https://huggingface.co").replace(/\/+$/, ""),
    cacheDir: variable("HF_HUB_CACHE") ?? variable("HUGGINGFACE_HUB_CACHE") ?? join(home, "hub"),
    token: variable("HF_TOKEN") ?? (storedToken === "" ? undefined : storedToken),
    tokenFrom,
    offline: isTrue(variable("HF_HUB_OFFLINE")),
    stallMs: milliseconds(variable("HF_HUB_DOWNLOAD_TIMEOUT")),
    unusedProxy: unusedProxy(variable),
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
function unusedProxy(variable: (key: string) => string | undefined): string | undefined {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  const canUseProxies = major >= 24 || (major === 22 && minor >= 21);
  if (canUseProxies && variable("NODE_USE_ENV_PROXY") === "1") return undefined;
  return ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"].find(
    (key) => variable(key) !== undefined,
  );
}

function isTrue(value: string | undefined): boolean {
  return value !== undefined && /^(1|on|yes|true)$/i.test(value);
}
