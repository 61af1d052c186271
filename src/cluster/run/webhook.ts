/** Alerts as JSON by POST, in the form that chat programs take: `text` is what they show. */

/** Sends an event with its line of text. What cannot be delivered stops nothing; the terminal has it. */
export async function postAlert(webhook: string, text: string, event: object): Promise<void> {
  await fetch(webhook, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ text, ...event }),
    signal: AbortSignal.timeout(10_000),
  }).catch(() => undefined);
}
