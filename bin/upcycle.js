#!/usr/bin/env node
// The command line starts from the bundle that `npm run build` makes, in half the time. With --debug it starts from the
// same modules one by one, so that stacks name the module, the function and the line.
await import(process.argv.includes("--debug") ? "../dist/cli/main.js" : "../dist/bundle/main.js");
