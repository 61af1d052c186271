// Prepares a release: npm run release -- 0.2.0
// Checks the tree and CHANGELOG.md, sets the version, verifies, packs, commits and tags. It pushes and publishes
// nothing: the last lines say how.
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";

const version = process.argv[2] ?? "";
const run = (command, ...args) =>
  execFileSync(command, args, { stdio: "inherit", shell: process.platform === "win32" });
const read = (command, ...args) => execFileSync(command, args, { encoding: "utf8" }).trim();

function refuse(why) {
  console.error(`release: ${why}`);
  process.exit(2);
}

if (!/^\d+\.\d+\.\d+(-[\w.]+)?$/.test(version)) refuse(`"${version}" is no version; npm run release -- 0.2.0`);
if (read("git", "status", "--porcelain") !== "") refuse("there are changes that are not committed");
if (read("git", "tag", "--list", `v${version}`) !== "") refuse(`there is a tag v${version} already`);
if (!readFileSync("CHANGELOG.md", "utf8").includes(`\n## ${version}`))
  refuse(`CHANGELOG.md has no section "## ${version}"; rename "## Unreleased"`);

run("npm", "version", version, "--no-git-tag-version", "--allow-same-version");
run("npm", "run", "verify");
run("npm", "pack");
run("git", "commit", "--all", "--allow-empty", "--message", `Release ${version}`);
run("git", "tag", "--annotate", `v${version}`, "--message", `Upcycle ${version}`);
console.log(`release: packed and tagged; to publish:
  git push --follow-tags
  npm publish upcycle-${version}.tgz`);
