// Bundles what pages compute with into one script each: dist/report/plan/plan-live.js and the pure modules it imports
// -> plan-live.bundle.js, which defines `upcyclePlan`. The same compiled code runs in Node and in the page.
import { rolldown } from "rolldown";

const bundle = await rolldown({ input: "dist/report/plan/plan-live.js", logLevel: "warn" });
await bundle.write({ file: "dist/report/plan/plan-live.bundle.js", format: "iife", name: "upcyclePlan", minify: true });
await bundle.close();
