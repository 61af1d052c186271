/** What a schema says of records that programs write. */

/** Zod's own words, but for what is not there. */
export function issueText({ message }: { readonly message: string }): string {
  return message.replace(/^Invalid input: expected (.+), received undefined$/, "this is missing, expected $1");
}
