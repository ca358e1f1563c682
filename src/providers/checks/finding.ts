import type { Layer } from "../../domain/check.ts";

/** What is said of one way in which a connection test ends. */
export interface Finding {
  readonly layer: Layer;
  /** One sentence that says what happened. */
  readonly message: string;
  /** One sentence that says what to do. */
  readonly nextStep: string;
}

/** Writes one down in a line. */
export const finding = (layer: Layer, message: string, nextStep: string): Finding => ({ layer, message, nextStep });
