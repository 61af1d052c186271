/** Alerts as JSON by POST to the address that the user gave, in the form that `upcycle watch --webhook` sends. */
import { postAlert } from "../../cluster/run/webhook.js";
import type { StudioAlert } from "../data/types.js";

/** Milliseconds within which an alert of the same kind of the same run is not sent again. */
const quietMs = 300_000;

/** Where alerts are sent. */
export class Webhook {
  readonly #sent = new Map<string, number>();

  #isTold = false;

  /** `onProblem` hears once that an alert was not delivered. */
  constructor(
    private readonly address: string,
    private readonly onProblem: (message: string) => void = () => undefined,
    private readonly now: () => number = Date.now,
  ) {}

  /** Sends an alert, unless its like was sent a short time ago. What cannot be delivered stops nothing. */
  send(alert: StudioAlert): void {
    const key = `${alert.run ?? ""} ${alert.kind}`;
    const last = this.#sent.get(key);
    if (last !== undefined && this.now() - last < quietMs) return;
    this.#sent.set(key, this.now());
    const place = [alert.run, alert.step === null ? null : `step ${alert.step}`]
      .filter((part) => part !== null)
      .join(", ");
    void postAlert(
      this.address,
      `${alert.level}: ${alert.kind}${place === "" ? "" : `, ${place}`}: ${alert.message}`,
      alert,
    ).then((problem) => {
      if (problem === null || this.#isTold) return;
      this.#isTold = true;
      this.onProblem(problem);
    });
  }
}
