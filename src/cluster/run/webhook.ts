/** Alerts as JSON by POST, in the form that chat programs take: `text` is what they show. */

/**
 * Sends an event with its line of text. What cannot be delivered stops nothing; the line that says why is returned,
 * else null.
 */
export async function postAlert(webhook: string, text: string, event: object): Promise<string | null> {
  try {
    const answer = await fetch(webhook, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ text, ...event }),
      signal: AbortSignal.timeout(10_000),
    });
    await answer.body?.cancel();
    return answer.ok ? null : undelivered(`it answers ${answer.status}`);
  } catch (error) {
    return undelivered(reasonOf(error));
  }
}

/** The address may hold a secret, so that it is not told. */
const undelivered = (why: string): string => `the webhook did not get an alert: ${why}; check the address of --webhook`;

function reasonOf(error: unknown): string {
  const { cause } = error as { readonly cause?: { readonly code?: string } };
  return cause?.code ?? (error instanceof Error && error.name === "TimeoutError" ? "no answer in 10 s" : "unreachable");
}
