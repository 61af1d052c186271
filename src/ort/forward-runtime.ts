/** Forward graphs over one set of weights, in this thread. */
import type { LogitsProgram } from "../step/programs.js";
import type { BackendOptions, ForwardRuntime } from "../step/runtime.js";
import { floats, intTensor, openSession, tensor, type Session } from "./session.js";

export function openForwardRuntime(options: BackendOptions): ForwardRuntime {
  const weights = new Map<string, Float32Array>();
  // Promises, so that two calls at once compile a program once.
  const sessions = new Map<string, Promise<Session>>();
  return {
    write(key, data) {
      weights.set(key, data);
      return Promise.resolve();
    },
    async run(name: string, program: LogitsProgram, feeds: readonly Int32Array[]) {
      let session = sessions.get(name);
      if (session === undefined) {
        session = openSession(program.graph, options);
        sessions.set(name, session);
      }
      const compiled = await session;
      const params = program.params.map(({ key, shape }) => {
        const data = weights.get(key);
        if (data === undefined) throw new Error(`weight ${key} was never written`);
        return tensor(data, shape);
      });
      const [logits] = await compiled.run([...feeds.map(intTensor), ...params], []);
      return floats(logits!);
    },
    async close() {
      for (const session of sessions.values()) await (await session.catch(() => null))?.close();
      sessions.clear();
      weights.clear();
    },
  };
}
