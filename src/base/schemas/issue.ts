/** The wording of problems in records that programs write. */

/** Zod's own words, except where a value is missing. */
export function issueText({ message }: { readonly message: string }): string {
  return message.replace(/^Invalid input: expected (.+), received undefined$/, "this is missing, expected $1");
}
