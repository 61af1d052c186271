/** Forward graphs over one set of weights, in this thread. */
import type { LogitsProgram } from "../step/programs.js";
import type { BackendOptions, ForwardRuntime } from "../step/runtime.js";
import { floats, intTensor, openSession, tensor, type Session } from "./session.js";

export function openForwardRuntime(options: BackendOptions): ForwardRuntime {
  const weights = new Map<string, Float32Array>();
  const sessions = new Map<string, Session>();
  return {
    write(key, data) {
      weights.set(key, data);
      return Promise.resolve();
    },
    async run(name: string, program: LogitsProgram, feeds: readonly Int32Array[]) {
      let session = sessions.get(name);
      if (session === undefined) {
        session = await openSession(program.graph, options);
        sessions.set(name, session);
      }
      const params = program.params.map(({ key, shape }) => {
        const data = weights.get(key);
        if (data === undefined) throw new Error(`weight ${key} was never written`);
        return tensor(data, shape);
      });
      const [logits] = await session.run([...feeds.map(intTensor), ...params], []);
      return floats(logits!);
    },
    async close() {
      for (const session of sessions.values()) await session.close();
      sessions.clear();
      weights.clear();
    },
  };
}
