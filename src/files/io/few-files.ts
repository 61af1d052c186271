/**
 * Loads modules one file at a time where few files may be open: Node.js opens all that a module imports at once.
 * Importing this module is enough; threads do so by `moduleArguments`.
 */
import { register } from "node:module";
import { hasFewFiles } from "./limits.js";

if (hasFewFiles()) register("./few-files-hooks.js", import.meta.url);
