// Milliseconds until an index of a folder knows how far all runs are, and until it has read all logs.
import { clearInterval, setInterval } from "node:timers";
import { StudioIndex } from "../../dist/studio/folders/index.js";

const start = performance.now();
const index = await StudioIndex.open(process.argv[2]);
let known = null;
// The page asks as often while logs are read.
const timer = setInterval(() => {
  const { rows } = index;
  if (known !== null || rows.length === 0 || rows.some(({ state }) => state === "unread")) return;
  known = performance.now() - start;
}, 10);
await index.lookAround();
clearInterval(timer);
const read = performance.now() - start;
console.log(JSON.stringify({ known: known ?? read, read, runs: index.rows.length }));
