/** A task of questions with choices, as tests of evaluations ask it. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";

/** A question; `answer` is the place of the right choice. */
export interface QuizDocument {
  readonly question: string;
  readonly choices: readonly string[];
  readonly answer: number;
}

const task = `task: quiz
dataset_path: json
dataset_kwargs: { data_files: { test: quiz.jsonl, train: quiz.jsonl } }
output_type: multiple_choice
training_split: train
test_split: test
doc_to_text: "{{question}}"
doc_to_choice: choices
doc_to_target: answer
`;

/** Writes the questions, and the task file `quiz.yaml` that names them, into a folder; returns that file's path. */
export function writeQuiz(folder: string, documents: readonly QuizDocument[]): string {
  const path = join(folder, "quiz.yaml");
  writeFileSync(join(folder, "quiz.jsonl"), documents.map((one) => `${JSON.stringify(one)}\n`).join(""));
  writeFileSync(path, task);
  return path;
}
