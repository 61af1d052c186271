/**
 * Since 1.30 onnxruntime's builds for Linux and macOS report the use of the library to its vendor, and keep a device id
 * and a queue of events in the user's home (`.cache/Microsoft/DeveloperTools` on Linux;
 * onnxruntime/core/platform/posix/telemetry.cc in microsoft/onnxruntime). Nothing is to leave the machine that nobody
 * asked for, so this is switched off before the library's first session; who sets the variable decides.
 */
import { isMainThread } from "node:worker_threads";

const VARIABLE = "ORT_DISABLE_TELEMETRY";

/**
 * Switches off what onnxruntime would report of this process. Only the main thread can: the environment of a worker
 * thread is a copy that the library does not see, so the main thread has to call this before it starts one.
 */
export function disableTelemetry(): void {
  if (isMainThread) process.env[VARIABLE] ??= "1";
}
