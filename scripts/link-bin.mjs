// Makes `npx upcycle` work inside the checkout: npm links a package's bin into dependants, not into itself.
import { existsSync, mkdirSync, writeFileSync } from "node:fs";

if (existsSync("node_modules")) {
  mkdirSync("node_modules/.bin", { recursive: true });
  writeFileSync("node_modules/.bin/upcycle", '#!/usr/bin/env node\nimport("../../bin/upcycle.js");\n', {
    mode: 0o755,
  });
  writeFileSync("node_modules/.bin/upcycle.cmd", '@node "%~dp0\\..\\..\\bin\\upcycle.js" %*\r\n');
}
