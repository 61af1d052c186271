// Installs dependencies with `npm ci` unless node_modules already matches the lockfile.
import { execSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";

function upToDate() {
  const marker = "node_modules/.package-lock.json";
  if (!existsSync(marker)) return false;
  const installed = JSON.parse(readFileSync(marker, "utf8")).packages ?? {};
  const wanted = JSON.parse(readFileSync("package-lock.json", "utf8")).packages ?? {};
  return Object.entries(wanted).every(
    ([path, entry]) =>
      path === "" ||
      (installed[path] ? installed[path].version === entry.version && existsSync(path) : entry.optional === true),
  );
}

if (!upToDate()) execSync("npm ci", { stdio: "inherit" });
