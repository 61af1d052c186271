/** On what a training ran, as plain data: the end of a run's log has it, and a study's result. */
export interface Machine {
  readonly node: string;
  readonly platform: string;
  /** The processor and how many of its threads the system shows. */
  readonly cpu: string;
  /** What trained, such as `cuda bf16 on cuda:0`. */
  readonly device: string;
}
