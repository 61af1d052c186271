// Makes `npx upcycle` work inside the checkout: npm links a package's bin into dependants, not into itself.
import { chmodSync, existsSync, mkdirSync, writeFileSync } from "node:fs";

chmodSync("dist/cli/main.js", 0o755);
if (existsSync("node_modules")) {
  mkdirSync("node_modules/.bin", { recursive: true });
  writeFileSync("node_modules/.bin/upcycle", '#!/usr/bin/env node\nimport("../../dist/cli/main.js");\n', {
    mode: 0o755,
  });
  writeFileSync("node_modules/.bin/upcycle.cmd", '@node "%~dp0\\..\\..\\dist\\cli\\main.js" %*\r\n');
}
