import type { Finding, Layer } from "../../domain/check.ts";

/** Writes one down in a line. */
export const finding = (layer: Layer, message: string, nextStep: string): Finding => ({ layer, message, nextStep });
